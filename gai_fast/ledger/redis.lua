-- One exchange of a worker with the shared limits: `Home.exchange` in Lua. Each rule is explained in state.py.
--
-- ARGV[1]: the prefix of all keys. ARGV[2]: the worker. ARGV[3]: the exchange in MessagePack: number, entries, reports.
-- ARGV[4]: limits: gone, kept, tight (seconds), scarce, parts, spend_days, spend_entries, and the name of what is beyond
-- them. Amounts are decimal texts.
-- Returns the answers in MessagePack; 1 where an earlier exchange of this worker is known here, else 0; and how many sums
-- of spend were full. Nothing: the exchange was taken before; the error LAYOUT: the keys are those of another release,
-- and none was touched.

local prefix, me = ARGV[1], ARGV[2]
local exchange = cmsgpack.unpack(ARGV[3])
local gone, kept_for, tight_for, scarce, parts, spend_days, spend_entries, other = unpack(cmsgpack.unpack(ARGV[4]))
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local SLACK, MINUTE, DAY = 1e-5, 60, 86400
local LAYOUT = '1' -- changes with what any key below holds
local GRANTED, UNCLEAR = -1, -2
local REQUESTS, TOKENS, STREAMS, SPEND = 0, 1, 2, 3

local layout = redis.call('GET', prefix .. 'layout')
if layout and layout ~= LAYOUT then return redis.error_reply('LAYOUT ' .. layout) end
if not layout or #exchange[2] > 0 then -- it lives as long as the spend
  redis.call('SET', prefix .. 'layout', LAYOUT, 'EX', spend_days * DAY)
end

local number = exchange[1]
redis.call('SET', prefix .. 'worker:' .. me, 1, 'PX', math.floor(gone * 1000))
local last = redis.call('GET', prefix .. 'number:' .. me)
if tonumber(last or '0') >= number then return nil end
redis.call('SET', prefix .. 'number:' .. me, number, 'EX', math.floor(kept_for))

-- Spend. A sum that 64 bits do not hold is the largest that they hold, which is above every limit.
local MOST = '9223372036854775807'
local full = 0
local broken -- what else keeps a sum from being added to: told when all others have been
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
    field = cjson.encode({key, other, other, currency})
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

local function wait(over, kept, limit)
  if limit == 0 then return 0 end
  if over > SLACK then return over * MINUTE / limit end
  return (over + kept) * MINUTE / limit
end

local function decide(state, caps, tokens, asked, is_last)
  local kept, live, is_open = {[0] = 0, 0, 0, 0}, 0, false
  for worker, holder in pairs(state.holders) do
    live = live + holder.live
    if worker ~= me then
      for place = 0, 3 do kept[place] = kept[place] + holder.kept[place] end
      if holder.heard < asked and not is_last then is_open = true end
    end
  end
  local is_unclear = false
  if caps.spend then
    if state.spent >= caps.spend then return SPEND, 0 end
    is_unclear = is_open and state.spent + kept[SPEND] >= caps.spend
  end
  for place = REQUESTS, TOKENS do
    local limit = caps[place]
    if limit then
      local count = place == REQUESTS and 1 or math.min(tokens, limit)
      local over = used(state.rates[place]) + count - limit
      if over > SLACK or limit == 0 or (not is_open and over + kept[place] > SLACK) then
        return place, wait(over, kept[place], limit)
      end
      if over + kept[place] > SLACK then is_unclear = true end
    end
  end
  if caps[STREAMS] and caps[STREAMS] - live - kept[STREAMS] <= 0 then
    if not is_open or caps[STREAMS] == 0 then return STREAMS, 0 end
    is_unclear = true
  end
  if is_unclear then
    state.tight = now + tight_for
    return UNCLEAR, 0
  end
  if caps[REQUESTS] then add(state.rates[REQUESTS], 1, now) end
  if caps[TOKENS] then add(state.rates[TOKENS], math.min(tokens, caps[TOKENS]), now) end
  local mine = state.holders[me]
  if not mine then
    mine = {kept = {[0] = 0, 0, 0, 0}, live = 0, heard = 0}
    state.holders[me] = mine
  end
  mine.live = mine.live + 1
  return GRANTED, 0
end

-- How much more of each limit this worker may keep.
local function keep(state, caps)
  local more, mine, sum, live = {0, 0, 0, 0}, state.holders[me], {[0] = 0, 0, 0, 0}, 0
  if now < state.tight then return more end
  for _, holder in pairs(state.holders) do
    live = live + holder.live
    for place = 0, 3 do sum[place] = sum[place] + holder.kept[place] end
  end
  local free = {
    [REQUESTS] = caps[REQUESTS] and math.floor(caps[REQUESTS] - used(state.rates[REQUESTS])) or 0,
    [TOKENS] = caps[TOKENS] and math.floor(caps[TOKENS] - used(state.rates[TOKENS])) or 0,
    [STREAMS] = caps[STREAMS] and caps[STREAMS] - live or 0,
    [SPEND] = caps.spend and caps.spend - state.spent or 0,
  }
  for place = 0, 3 do
    local left = free[place] - sum[place]
    if left >= scarce then
      local own = mine and mine.kept[place] or 0
      more[place + 1] = math.max(0, math.floor(left / parts) - own)
    end
  end
  if more[1] + more[2] + more[3] + more[4] > 0 then
    if not mine then
      mine = {kept = {[0] = 0, 0, 0, 0}, live = 0, heard = now}
      state.holders[me] = mine
    end
    for place = 0, 3 do mine.kept[place] = mine.kept[place] + more[place + 1] end
  end
  return more
end

-- Rule 6.
local function is_overcommitted(state, caps)
  local tokens, spend = 0, 0
  for worker, holder in pairs(state.holders) do
    if worker ~= me then
      tokens = tokens + holder.kept[TOKENS]
      spend = spend + holder.kept[SPEND]
    end
  end
  if spend > 0 and caps.spend and state.spent + spend > caps.spend then return true end
  return tokens > 0 and caps[TOKENS] ~= nil and used(state.rates[TOKENS]) + tokens - caps[TOKENS] > SLACK
end

local function load(name, label)
  local state = {rates = {[REQUESTS] = {tat = 0, limit = 0}, [TOKENS] = {tat = 0, limit = 0}}, holders = {}, tight = 0}
  local lost = {}
  local fields = redis.call('HGETALL', prefix .. 'key:' .. name)
  for at = 1, #fields, 2 do
    local field, value = fields[at], fields[at + 1]
    if field == 'state' then
      local requests, tokens
      requests, tokens, state.tight = unpack(cmsgpack.unpack(value))
      state.rates = {
        [REQUESTS] = {tat = requests[1], limit = requests[2]}, [TOKENS] = {tat = tokens[1], limit = tokens[2]},
      }
    else
      local worker = string.sub(field, 2)
      if is_alive(worker) then
        local kept = cmsgpack.unpack(value)
        state.holders[worker] = {
          kept = {[0] = kept[1], kept[2], kept[3], kept[4]}, live = kept[5], heard = kept[6],
        }
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
  local value = cmsgpack.pack({{requests.tat, requests.limit}, {tokens.tat, tokens.limit}, state.tight})
  redis.call('HSET', hash, 'state', value)
  local mine = state.holders[me]
  if mine then
    local kept = mine.kept
    redis.call('HSET', hash, 'h' .. me, cmsgpack.pack({kept[0], kept[1], kept[2], kept[3], mine.live, mine.heard}))
  else
    redis.call('HDEL', hash, 'h' .. me)
  end
  local longest = math.max(kept_for, requests.tat - now, tokens.tat - now)
  redis.call('EXPIRE', hash, math.ceil(longest))
end

local answers = {}
for at, report in ipairs(exchange[3]) do
  local name, limits, kept, requests, tokens, age, live, asks, wants_more = unpack(report)
  local caps = {[REQUESTS] = limits[1], [TOKENS] = limits[2], [STREAMS] = limits[3], spend = limits[4] and tonumber(limits[4])}
  local state = load(name, limits[5])
  use(state.rates[REQUESTS], caps[REQUESTS])
  use(state.rates[TOKENS], caps[TOKENS])
  if requests ~= 0 then add(state.rates[REQUESTS], requests, now - age) end
  if tokens ~= 0 then add(state.rates[TOKENS], tokens, tokens > 0 and now - age or now) end
  if live > 0 or kept[1] + kept[2] + kept[3] + kept[4] > 0 then
    state.holders[me] = {kept = {[0] = kept[1], kept[2], kept[3], kept[4]}, live = live, heard = now}
  else
    state.holders[me] = nil
  end
  local verdicts, others, must_ask = {}, {}, false
  for position, ask in ipairs(asks) do
    local verdict, seconds = decide(state, caps, ask[1], now - ask[2], ask[3])
    verdicts[position] = {verdict, seconds}
    must_ask = must_ask or verdict == UNCLEAR
  end
  local more = {0, 0, 0, 0}
  if wants_more then more = keep(state, caps) end
  save(name, state)
  if must_ask or is_overcommitted(state, caps) then
    for worker, _ in pairs(state.holders) do
      if worker ~= me then
        others[#others + 1] = worker
        redis.call('RPUSH', prefix .. 'recall:' .. worker, name)
        redis.call('LTRIM', prefix .. 'recall:' .. worker, -1000, -1)
        redis.call('PEXPIRE', prefix .. 'recall:' .. worker, math.floor(gone * 1000))
      end
    end
  end
  answers[at] = {verdicts, more, {used(state.rates[REQUESTS]), used(state.rates[TOKENS])}, others}
end
if broken then return redis.error_reply(broken) end
return {cmsgpack.pack(answers), last and 1 or 0, full}
