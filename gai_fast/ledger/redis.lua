-- One exchange of a worker with the shared limits: `Home.exchange` in Lua. Each rule is explained in state.py.
--
-- ARGV[1]: the prefix of all keys. ARGV[2]: the worker. ARGV[3]: the exchange in MessagePack: number, entries, reports.
-- ARGV[4]: limits: gone, kept (seconds), spend_days, spend_entries, and the name of what is beyond them. Amounts are
-- decimal texts.
-- Returns the answers in MessagePack; 1 where this worker was alive here until now, else 0: others may have given back what
-- it has; how many sums of spend were full; the keys whose limits were damaged, and the key and day of each damaged sum of
-- spend: both are counted from zero again. A damaged key's answer is empty, and its requests are not decided on.
-- Nothing: the exchange was taken before; the error LAYOUT: the keys are those of another release, and none was touched.

local prefix, me = ARGV[1], ARGV[2]
local exchange = cmsgpack.unpack(ARGV[3])
local gone, kept_for, spend_days, spend_entries, other = unpack(cmsgpack.unpack(ARGV[4]))
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local SLACK, MINUTE, DAY = 1e-5, 60, 86400
local LAYOUT = '2' -- changes with what any key below holds
local GRANTED = -1
local REQUESTS, TOKENS, STREAMS, SPEND = 0, 1, 2, 3

local layout = redis.call('GET', prefix .. 'layout')
if layout and layout ~= LAYOUT then return redis.error_reply('LAYOUT ' .. layout) end
if not layout or #exchange[2] > 0 then -- it lives as long as the spend
  redis.call('SET', prefix .. 'layout', LAYOUT, 'EX', spend_days * DAY)
end

local number = exchange[1]
-- Returns a number; 0 if there is none, or it is damaged.
local function number_at(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and tonumber(value) or 0
end

-- The server's clock may be set back: a time to live alone would then keep a worker that is gone.
local function is_heard(worker)
  local heard = number_at(prefix .. 'worker:' .. worker)
  return heard == 1 or math.abs(now - heard) <= gone -- 1: of an earlier release
end
local was_alive = is_heard(me) and 1 or 0
redis.call('SET', prefix .. 'worker:' .. me, string.format('%.6f', now), 'PX', math.floor(gone * 1000))
if number_at(prefix .. 'number:' .. me) >= number then return nil end
redis.call('SET', prefix .. 'number:' .. me, number, 'EX', spend_days * DAY) -- as long as what it has counted

-- Spend. A sum that 64 bits do not hold is the largest that they hold, which is above every limit.
local MOST = '9223372036854775807'
local full = 0
local damaged, damaged_sums = {}, {}
local broken -- the first other error; returned at the end, when everything else is written
-- Returns whether the sum was damaged.
local function sum_up(add, put, key, ...)
  local reply = redis.pcall(add, key, ...)
  if type(reply) ~= 'table' or not reply.err then return false end
  local words = {...}
  local is_full = string.find(reply.err, 'would overflow', 1, true)
  if is_full then
    full = full + 1
    words[#words] = MOST
  elseif string.find(reply.err, 'WRONGTYPE', 1, true) then
    redis.call('DEL', key)
  elseif not string.find(reply.err, 'not an integer', 1, true) then
    broken = broken or reply.err
    return false
  end
  redis.call(put, key, unpack(words))
  return not is_full
end

for _, entry in ipairs(exchange[2]) do
  local key, model, upstream, day, currency, amount, requests = unpack(entry)
  local sums = prefix .. 'spend:' .. day
  local field = cjson.encode({key, model, upstream, currency})
  local is_there = redis.pcall('HEXISTS', sums, 'r' .. field)
  if type(is_there) == 'table' then -- no hash, so every sum of the day is lost
    redis.call('DEL', sums)
    damaged_sums[#damaged_sums + 1] = {'all keys', day}
    is_there = 0
  end
  if is_there == 0 and redis.call('HLEN', sums) >= 2 * spend_entries then
    field = cjson.encode({string.match(key, '^[^:]*'), other, other, currency}) -- `figure_label`, as in book.py
  end
  local is_amount_damaged = sum_up('HINCRBY', 'HSET', sums, 'a' .. field, amount)
  if sum_up('HINCRBY', 'HSET', sums, 'r' .. field, requests) or is_amount_damaged then
    damaged_sums[#damaged_sums + 1] = {key, day}
  end
  redis.call('EXPIRE', sums, spend_days * DAY)
  local added = redis.pcall('ZADD', prefix .. 'days', 0, day)
  if type(added) == 'table' then -- no sorted set, so the other days are in no report
    redis.call('DEL', prefix .. 'days')
    redis.call('ZADD', prefix .. 'days', 0, day)
    damaged_sums[#damaged_sums + 1] = {'all keys', 'all former days'}
  end
  redis.call('ZREMRANGEBYRANK', prefix .. 'days', 0, -spend_days - 1)
  redis.call('EXPIRE', prefix .. 'days', spend_days * DAY)
  local labels = {{'d' .. day, 3}, {'m' .. string.sub(day, 1, 7), 40}, {'t', spend_days}}
  for _, label in ipairs(labels) do
    local sum = prefix .. 'spent:' .. label[1] .. ' ' .. currency .. ':' .. key
    if sum_up('INCRBY', 'SET', sum, amount) then damaged[key] = true end
    redis.call('EXPIRE', sum, label[2] * DAY)
  end
end

local living = {[me] = true}
local function is_alive(worker)
  if living[worker] == nil then
    living[worker] = is_heard(worker)
  end
  return living[worker]
end

local function used(rate)
  if rate.tat > now then return (rate.tat - now) * rate.limit / MINUTE end
  return 0
end

local function use(rate, limit)
  if limit and limit ~= rate.limit then
    if rate.tat > now and limit > 0 and rate.limit > 0 then
      rate.tat = now + (rate.tat - now) * rate.limit / limit
    end
    rate.limit = limit
  end
end

local function add(rate, count, at)
  if rate.limit > 0 then
    local begin = at
    if count < 0 or rate.tat > at then begin = rate.tat end
    rate.tat = begin + count * MINUTE / rate.limit
  end
end

-- Returns the place of the limit that refuses, the wait, and what was reserved.
local function decide(state, caps, demand)
  local live, held, reserved = 0, 0, 0
  for _, holder in pairs(state.holders) do
    live = live + holder.live
    held = held + holder.reserved
  end
  local tokens, reservation, is_new = demand[1], demand[2], demand[3]
  if caps.spend then
    local left, least = caps.spend - state.spent - held, tonumber(reservation[1])
    reserved = tonumber(reservation[2])
    if reserved > left and (not is_new or held == 0) then reserved = math.max(least, left) end
    if left <= 0 or reserved > left then return SPEND, 0, 0 end
  end
  if is_new then
    local needed = live > 0 and tokens or tokens - demand[4]
    for place = REQUESTS, TOKENS do
      local limit = caps[place]
      if limit then
        local over = used(state.rates[place]) + (place == REQUESTS and 1 or math.min(needed, limit)) - limit
        if over > SLACK or limit == 0 then return place, limit > 0 and over * MINUTE / limit or 0, 0 end
      end
    end
    if caps[STREAMS] and caps[STREAMS] <= live then return STREAMS, 0, 0 end
    if not demand[5] then return GRANTED, 0, reserved end
    if caps[REQUESTS] then add(state.rates[REQUESTS], 1, now) end
    if caps[TOKENS] then add(state.rates[TOKENS], math.min(tokens, caps[TOKENS]), now) end
  end
  local mine = state.holders[me] or {live = 0, reserved = 0}
  state.holders[me] = mine
  if is_new then mine.live = mine.live + 1 end
  mine.reserved = mine.reserved + reserved
  return GRANTED, 0, reserved
end

-- Returns a record of an array; nothing if it is damaged.
local function unpacked(value)
  local is_read, record = pcall(cmsgpack.unpack, value)
  if is_read and type(record) == 'table' then return record end
end

-- Returns a rate as it was written, at a clock that was set back by so many seconds; nothing if it is damaged.
local function rate_of(record, back)
  if type(record) ~= 'table' then return end
  local tat, limit = record[1], record[2]
  if type(tat) == 'number' and type(limit) == 'number' then return {tat = tat - back, limit = limit} end
end

-- Reads a field of a key's hash into its state. Returns whether it could be read, and whether it is of a lost worker.
local function read_field(state, field, value)
  local record = unpacked(value)
  if not record then return false end
  if field == 'state' then
    local written = type(record[3]) == 'number' and record[3] or now
    local back = math.max(0, written - now) -- above 0 if the server's clock was set back
    local requests, tokens = rate_of(record[1], back), rate_of(record[2], back)
    if not requests or not tokens then return false end
    state.rates = {[REQUESTS] = requests, [TOKENS] = tokens}
    return true, false
  end
  local live, reserved = record[1], record[2]
  if type(live) ~= 'number' or type(reserved) ~= 'number' then return false end
  local worker = string.sub(field, 2)
  if not is_alive(worker) then return true, true end
  state.holders[worker] = {live = live, reserved = reserved}
  return true, false
end

local function new_state()
  return {rates = {[REQUESTS] = {tat = 0, limit = 0}, [TOKENS] = {tat = 0, limit = 0}}, holders = {}}
end

local function load(name, label)
  local state, lost = new_state(), {}
  local hash = prefix .. 'key:' .. name
  local fields = redis.pcall('HGETALL', hash)
  local is_read = not fields.err
  for at = 1, #fields, 2 do
    local is_field_read, is_lost = read_field(state, fields[at], fields[at + 1])
    is_read = is_read and is_field_read
    if is_lost then lost[#lost + 1] = fields[at] end
  end
  if not is_read then
    redis.call('DEL', hash)
    damaged[name] = true
    state = new_state()
  elseif #lost > 0 then
    redis.call('HDEL', hash, unpack(lost))
  end
  state.spent = 0
  if label ~= '' then
    local sum = prefix .. 'spent:' .. label .. ':' .. name
    local value = redis.pcall('GET', sum)
    local spent = type(value) == 'string' and tonumber(value)
    if spent then
      state.spent = spent
    elseif value then
      redis.call('DEL', sum)
      damaged[name] = true
    end
  end
  return state
end

local function save(name, state)
  local hash = prefix .. 'key:' .. name
  local requests, tokens = state.rates[REQUESTS], state.rates[TOKENS]
  local value = cmsgpack.pack({{requests.tat, requests.limit}, {tokens.tat, tokens.limit}, now})
  redis.call('HSET', hash, 'state', value)
  local mine = state.holders[me]
  if mine then
    redis.call('HSET', hash, 'h' .. me, cmsgpack.pack({mine.live, mine.reserved}))
  else
    redis.call('HDEL', hash, 'h' .. me)
  end
  local longest = math.max(kept_for, requests.tat - now, tokens.tat - now)
  redis.call('EXPIRE', hash, math.ceil(longest))
end

-- An amount as a text, which also holds what a double has beyond 2^53.
local function text(amount) return string.format('%.0f', amount) end

local answers = {}
for at, report in ipairs(exchange[3]) do
  local name, limits, requests, tokens, age, live, reserved, demands = unpack(report)
  local caps = {[REQUESTS] = limits[1], [TOKENS] = limits[2], [STREAMS] = limits[3], spend = limits[4] and tonumber(limits[4])}
  local state = load(name, limits[5])
  use(state.rates[REQUESTS], caps[REQUESTS])
  use(state.rates[TOKENS], caps[TOKENS])
  if requests ~= 0 then add(state.rates[REQUESTS], requests, now - age) end
  if tokens ~= 0 then add(state.rates[TOKENS], tokens, tokens > 0 and now - age or now) end
  reserved = tonumber(reserved)
  state.holders[me] = (live > 0 or reserved > 0) and {live = live, reserved = reserved} or nil
  local verdicts = {}
  for position, demand in ipairs(damaged[name] and {} or demands) do
    local place, seconds, granted = decide(state, caps, demand)
    verdicts[position] = {place, seconds, text(granted), text(state.spent)}
  end
  save(name, state)
  local held = 0
  for _, holder in pairs(state.holders) do held = held + holder.reserved end
  answers[at] = {verdicts, {used(state.rates[REQUESTS]), used(state.rates[TOKENS]), text(state.spent), text(held)}}
end
if broken then return redis.error_reply(broken) end
local damaged_keys = {}
for name in pairs(damaged) do damaged_keys[#damaged_keys + 1] = name end
return {cmsgpack.pack(answers), was_alive, full, damaged_keys, damaged_sums}
