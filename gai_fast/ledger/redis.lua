-- One exchange of a worker with the shared limits: `Home.exchange` in Lua. Each rule is explained in state.py.
--
-- ARGV[1]: the prefix of all keys. ARGV[2]: the worker. ARGV[3]: the exchange in MessagePack: number, entries, reports.
-- ARGV[4]: limits: gone, kept (seconds), spend_days, spend_entries, and the name of what is beyond them. Amounts are
-- decimal texts.
-- Returns the answers in MessagePack; 1 where this worker was alive here until now, else 0: others may have given back what
-- it has; and how many sums of spend were full. Nothing: the exchange was taken before; the error LAYOUT: the keys are those of another release,
-- and none was touched.

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
local was_alive = redis.call('EXISTS', prefix .. 'worker:' .. me)
redis.call('SET', prefix .. 'worker:' .. me, 1, 'PX', math.floor(gone * 1000))
local last = redis.call('GET', prefix .. 'number:' .. me)
if tonumber(last or '0') >= number then return nil end
redis.call('SET', prefix .. 'number:' .. me, number, 'EX', spend_days * DAY) -- as long as what it has counted

-- Spend. A sum that 64 bits do not hold is the largest that they hold, which is above every limit.
local MOST = '9223372036854775807'
local full = 0
local broken -- the first error that is no overflow; returned at the end, when everything else is written
local function sum_up(add, put, key, ...)
  local reply = redis.pcall(add, key, ...)
  if type(reply) ~= 'table' or not reply.err then return end
  if not string.find(reply.err, 'would overflow', 1, true) then
    broken = broken or reply.err
    return
  end
  full = full + 1
  local words = {...}
  words[#words] = MOST
  redis.call(put, key, unpack(words))
end

for _, entry in ipairs(exchange[2]) do
  local key, model, upstream, day, currency, amount, requests = unpack(entry)
  local sums = prefix .. 'spend:' .. day
  local field = cjson.encode({key, model, upstream, currency})
  if redis.call('HEXISTS', sums, 'r' .. field) == 0 and redis.call('HLEN', sums) >= 2 * spend_entries then
    field = cjson.encode({string.match(key, '^[^:]*'), other, other, currency}) -- `figure_label`, as in book.py
  end
  sum_up('HINCRBY', 'HSET', sums, 'a' .. field, amount)
  sum_up('HINCRBY', 'HSET', sums, 'r' .. field, requests)
  redis.call('EXPIRE', sums, spend_days * DAY)
  redis.call('ZADD', prefix .. 'days', 0, day)
  redis.call('ZREMRANGEBYRANK', prefix .. 'days', 0, -spend_days - 1)
  redis.call('EXPIRE', prefix .. 'days', spend_days * DAY)
  local labels = {{'d' .. day, 3}, {'m' .. string.sub(day, 1, 7), 40}, {'t', spend_days}}
  for _, label in ipairs(labels) do
    local sum = prefix .. 'spent:' .. label[1] .. ' ' .. currency .. ':' .. key
    sum_up('INCRBY', 'SET', sum, amount)
    redis.call('EXPIRE', sum, label[2] * DAY)
  end
end

local living = {[me] = true}
local function is_alive(worker)
  if living[worker] == nil then
    living[worker] = redis.call('EXISTS', prefix .. 'worker:' .. worker) == 1
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

local function load(name, label)
  local state = {rates = {[REQUESTS] = {tat = 0, limit = 0}, [TOKENS] = {tat = 0, limit = 0}}, holders = {}}
  local lost = {}
  local fields = redis.call('HGETALL', prefix .. 'key:' .. name)
  for at = 1, #fields, 2 do
    local field, value = fields[at], fields[at + 1]
    if field == 'state' then
      local requests, tokens
      requests, tokens = unpack(cmsgpack.unpack(value))
      state.rates = {
        [REQUESTS] = {tat = requests[1], limit = requests[2]}, [TOKENS] = {tat = tokens[1], limit = tokens[2]},
      }
    else
      local worker = string.sub(field, 2)
      if is_alive(worker) then
        local held = cmsgpack.unpack(value)
        state.holders[worker] = {live = held[1], reserved = held[2]}
      else
        lost[#lost + 1] = field
      end
    end
  end
  if #lost > 0 then redis.call('HDEL', prefix .. 'key:' .. name, unpack(lost)) end
  state.spent = label ~= '' and tonumber(redis.call('GET', prefix .. 'spent:' .. label .. ':' .. name) or '0') or 0
  return state
end

local function save(name, state)
  local hash = prefix .. 'key:' .. name
  local requests, tokens = state.rates[REQUESTS], state.rates[TOKENS]
  local value = cmsgpack.pack({{requests.tat, requests.limit}, {tokens.tat, tokens.limit}})
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
  for position, demand in ipairs(demands) do
    local place, seconds, granted = decide(state, caps, demand)
    verdicts[position] = {place, seconds, text(granted), text(state.spent)}
  end
  save(name, state)
  local held = 0
  for _, holder in pairs(state.holders) do held = held + holder.reserved end
  answers[at] = {verdicts, {used(state.rates[REQUESTS]), used(state.rates[TOKENS]), text(state.spent), text(held)}}
end
if broken then return redis.error_reply(broken) end
return {cmsgpack.pack(answers), was_alive, full}
