-- One exchange of a worker with the shared limits: `Home.exchange` in Lua. Each rule is explained in state.py.
--
-- ARGV[1]: the prefix of all keys. ARGV[2]: the worker. ARGV[3]: the exchange in MessagePack: number, entries, reports.
-- ARGV[4]: limits: gone, kept (seconds), spend_days, spend_entries, the name of what is beyond them, and what each limit
-- over a time counts: whether tokens, and in how many seconds. Amounts are decimal texts.
-- Returns the answers in MessagePack; 1 where this worker was alive here until now, else 0: others may have given back what
-- it has; how many sums of spend were full; the keys whose limits were damaged, and the key and day of each damaged sum of
-- spend: both are counted from zero again. A damaged key's answer is empty, and its requests are not decided on.
-- No answers: the exchange was taken before. The error LAYOUT: the keys are those of another release, and none was touched.

local prefix, me = ARGV[1], ARGV[2]
local exchange = cmsgpack.unpack(ARGV[3])
local gone, kept_for, spend_days, spend_entries, other, kinds = unpack(cmsgpack.unpack(ARGV[4]))
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local SLACK, DAY = 1e-5, 86400
local LAYOUT = '2' -- changes with what any key below holds
local GRANTED = -1
local STREAMS, SPEND = #kinds, #kinds + 1

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
if number_at(prefix .. 'number:' .. me) >= number then return {false, was_alive, 0, {}, {}} end
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
  if rate.tat > now then return (rate.tat - now) * rate.limit / rate.window end
  return 0
end

local function use(rate, limit)
  if limit ~= rate.limit then
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
    rate.tat = begin + count * rate.window / rate.limit
  end
end

-- Returns the place of the limit that refuses, the wait, and what was reserved.
local function decide(state, caps, demand)
  local taken_from = demand[6]
  if taken_from and taken_from ~= me and state.holders[taken_from] then
    state.holders[taken_from] = nil
    state.released[#state.released + 1] = taken_from
  end
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
    if (left <= 0 or reserved > left) and not demand[7] then return SPEND, 0, 0 end
  end
  local rates = not taken_from and (is_new or tokens > 0) and caps.rates or {} -- rules 7 and 8
  local needed = live > (is_new and 0 or 1) and tokens or tokens - demand[4]
  for _, cap in ipairs(rates) do
    local place, limit = cap[1], cap[2]
    local rate = state.rates[place]
    if is_new or rate.counts_tokens then
      local over = used(rate) + (rate.counts_tokens and math.min(needed, limit) or 1) - limit
      if over > SLACK or limit == 0 then return place, limit > 0 and over * rate.window / limit or 0, 0 end
    end
  end
  if is_new and caps.streams and caps.streams <= live then return STREAMS, 0, 0 end
  if not demand[5] then return GRANTED, 0, reserved end
  for _, cap in ipairs(rates) do
    local rate = state.rates[cap[1]]
    add(rate, rate.counts_tokens and math.min(tokens, cap[2]) or is_new and 1 or 0, now)
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

-- Takes a rate as it was written, at a clock that was set back by so many seconds. Returns whether it could be read.
local function read_rate(rate, record, back)
  local tat, limit
  if type(record) == 'table' then tat, limit = record[1], record[2] end
  if type(tat) ~= 'number' or type(limit) ~= 'number' then return false end
  rate.tat, rate.limit = tat - back, limit
  return true
end

-- Reads a field of a key's hash into its state. Returns whether it could be read, and whether it is of a lost worker.
local function read_field(state, field, value)
  local record = unpacked(value)
  if not record then return false end
  if field == 'state' then
    -- The rates, as many as the release had limits over a time that wrote them, and when: not of an earlier release.
    local count, written = #record, record[#record]
    if type(written) == 'number' then count = count - 1 else written = now end
    if count == 0 then return false end
    local back = math.max(0, written - now) -- above 0 if the server's clock was set back
    for at = 1, math.min(count, #kinds) do
      if not read_rate(state.rates[at - 1], record[at], back) then return false end
    end
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
  local rates = {} -- by place, which begins at 0
  for at, kind in ipairs(kinds) do
    rates[at - 1] = {counts_tokens = kind[1], window = kind[2], tat = 0, limit = 0}
  end
  return {rates = rates, holders = {}, released = {}}
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
  local record, longest = {}, kept_for
  for at = 1, #kinds do
    local rate = state.rates[at - 1]
    record[at] = {rate.tat, rate.limit}
    longest = math.max(longest, rate.tat - now)
  end
  record[#kinds + 1] = now
  redis.call('HSET', hash, 'state', cmsgpack.pack(record))
  for _, worker in ipairs(state.released) do redis.call('HDEL', hash, 'h' .. worker) end
  local mine = state.holders[me]
  if mine then
    redis.call('HSET', hash, 'h' .. me, cmsgpack.pack({mine.live, mine.reserved}))
  else
    redis.call('HDEL', hash, 'h' .. me)
  end
  redis.call('EXPIRE', hash, math.ceil(longest))
end

-- An amount as a text, which also holds what a double has beyond 2^53.
local function text(amount) return string.format('%.0f', amount) end

local answers = {}
for at, report in ipairs(exchange[3]) do
  local name, limits, requests, tokens, age, live, reserved, demands = unpack(report)
  local caps = {rates = limits[1], streams = limits[3], spend = limits[4] and tonumber(limits[4])}
  local state = load(name, limits[5])
  for _, cap in ipairs(caps.rates) do use(state.rates[cap[1]], cap[2]) end
  for place = 0, #kinds - 1 do
    local rate = state.rates[place]
    local count = rate.counts_tokens and tokens or requests
    if count ~= 0 then add(rate, count, rate.counts_tokens and tokens < 0 and now or now - age) end
  end
  reserved = tonumber(reserved)
  state.holders[me] = (live > 0 or reserved > 0) and {live = live, reserved = reserved} or nil
  local verdicts = {}
  for position, demand in ipairs(damaged[name] and {} or demands) do
    local place, seconds, granted = decide(state, caps, demand)
    verdicts[position] = {place, seconds, text(granted), text(place == SPEND and state.spent or 0)}
  end
  save(name, state)
  local held = 0
  for _, holder in pairs(state.holders) do held = held + holder.reserved end
  local counts = {}
  for each = 1, #kinds do counts[each] = used(state.rates[each - 1]) end
  answers[at] = {verdicts, {counts, text(state.spent), text(held)}}
end
if broken then return redis.error_reply(broken) end
local damaged_keys = {}
for name in pairs(damaged) do damaged_keys[#damaged_keys + 1] = name end
return {cmsgpack.pack(answers), was_alive, full, damaged_keys, damaged_sums}
