-- Kept responses in Redis. redis.py has the keys and the rules.
--
-- ARGV[1]: the call. ARGV[2]: the prefix of all keys. ARGV[3]: bytes that one call removes. The others are the call's own.
-- All keys have one hash tag, so a cluster has them on one node. Time is the server's.

local call, prefix, most_removed = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ALL, DUE, ITEMS, SIZES = prefix .. 'all', prefix .. 'due', prefix .. 'items', prefix .. 'sizes'
local TOTAL = '' -- the field of `sizes` with the bytes of all
local DIGEST = 32 -- characters of a name
local BATCH = 64
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function key_of(name) return prefix .. 'one:' .. name end

local function text(number) return string.format('%.0f', number) end

local function entry(item, number, name) return item .. string.format('%016.0f', number) .. name end

-- Returns a field; false if there is none, or the key holds something else.
local function field(key, name)
  local value = redis.pcall('HGET', key, name)
  return type(value) == 'string' and value
end

local function size_of(caller) return tonumber(field(SIZES, caller) or 0) or 0 end

local function count(caller, size)
  for _, name in ipairs({caller, TOTAL}) do
    local sum = size_of(name) + size
    if sum > 0 then redis.call('HSET', SIZES, name, text(sum)) else redis.call('HDEL', SIZES, name) end
  end
end

-- Removes a response by its member in the sorted sets; returns its bytes.
local function remove(member)
  local name, caller, size, number = string.match(member, '^(%x+):(%x+):(%d+):(%d+)$')
  redis.call('ZREM', ALL, member)
  redis.call('ZREM', DUE, member)
  if not name then return 1 end -- damaged
  redis.call('ZREM', prefix .. 'of:' .. caller, member)
  local key = key_of(name)
  if field(key, 'member') == member then -- else it was kept again after the server had lost it
    local items = field(key, 'items') or ''
    for at = 1, #items, DIGEST do
      redis.call('ZREM', ITEMS, entry(string.sub(items, at, at + DIGEST - 1), number, name))
    end
    redis.call('UNLINK', key)
  end
  count(caller, -size)
  return tonumber(size)
end

-- Removes the response of a name, whatever its key holds. Writes nothing if there is none: after its first write a
-- script may exceed the server's memory.
local function remove_named(name)
  local key = key_of(name)
  if redis.call('EXISTS', key) == 0 then return end
  local member = field(key, 'member')
  if member then remove(member) end
  redis.call('UNLINK', key)
end

local function remove_expired()
  local removed = 0
  while removed < most_removed do
    local members = redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, BATCH)
    if #members == 0 then break end
    for _, member in ipairs(members) do
      removed = removed + remove(member)
      if removed >= most_removed then break end
    end
  end
  return removed
end

-- Drops responses until a caller and all callers have no more than their bytes, or this call has removed enough. Returns
-- the number of dropped ones, and 1 if there are more to drop.
local function make_room(caller, of_caller, of_all)
  local bounds = {{caller, of_caller, prefix .. 'of:' .. caller}, {TOTAL, of_all, ALL}}
  local function is_over() return size_of(caller) > of_caller or size_of(TOTAL) > of_all end
  local dropped = 0
  if is_over() then
    local left = most_removed - remove_expired()
    for _, bound in ipairs(bounds) do
      while left > 0 and size_of(bound[1]) > bound[2] do
        local oldest, newer = unpack(redis.call('ZRANGE', bound[3], 0, 1))
        if not newer then -- the newest alone is not too much: the server has lost the set
          local size = oldest and string.match(oldest, '^%x+:%x+:(%d+):') or 0
          redis.call('HSET', SIZES, bound[1], size)
          break
        end
        left = left - remove(oldest)
        redis.call('ZREM', bound[3], oldest) -- a damaged member names another set
        dropped = dropped + 1
      end
    end
    if left <= 0 and is_over() then return {dropped, 1} end
  end
  return {dropped, 0}
end

local function is_there(name)
  local key = key_of(name)
  if redis.call('EXISTS', key) == 0 then return false end
  local until_ms = tonumber(field(key, 'until') or '')
  return not until_ms or until_ms > now
end

if call == 'keep' then
  local name, caller, parent, value, size, ttl, of_caller, of_all, items, grace = unpack(ARGV, 4)
  remove_named(name)
  local key, own = key_of(name), prefix .. 'of:' .. caller
  local number = 1
  for _, each in ipairs({ALL, own}) do -- the server may have lost one of them
    local newest = redis.call('ZREVRANGE', each, 0, 0, 'WITHSCORES')[2]
    number = math.max(number, tonumber(newest or 0) + 1)
  end
  local member = name .. ':' .. caller .. ':' .. size .. ':' .. text(number)
  local until_ms, life = text(now + ttl), ttl + grace
  redis.call('HSET', key, 'value', value, 'parent', parent, 'member', member, 'items', items, 'until', until_ms)
  redis.call('PEXPIRE', key, text(life))
  redis.call('ZADD', ALL, number, member)
  redis.call('ZADD', own, number, member)
  redis.call('ZADD', DUE, until_ms, member)
  for at = 1, #items, DIGEST do
    redis.call('ZADD', ITEMS, 0, entry(string.sub(items, at, at + DIGEST - 1), number, name))
  end
  count(caller, tonumber(size))
  for _, each in ipairs({ALL, own, DUE, ITEMS, SIZES}) do
    if redis.call('PTTL', each) < life then redis.call('PEXPIRE', each, text(life)) end
  end
  return make_room(caller, tonumber(of_caller), tonumber(of_all))
elseif call == 'room' then
  return make_room(ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
elseif call == 'read' then
  local turns, most, size, found = tonumber(ARGV[4]), tonumber(ARGV[5]), 0, {}
  for at = 6, #ARGV do
    local name = ARGV[at]
    for _ = 1, turns do
      if name == '' or not is_there(name) then break end
      local value = field(key_of(name), 'value') or '' -- an empty value is damaged
      table.insert(found, name)
      table.insert(found, value)
      size = size + #value
      if size >= most then return found end
      name = field(key_of(name), 'parent') or ''
    end
  end
  return found
elseif call == 'holding' then
  local found = {}
  for at = 4, #ARGV, 2 do
    local item, likely = ARGV[at], ARGV[at + 1]
    local name = ''
    while name == '' do
      local newest = redis.call('ZREVRANGEBYLEX', ITEMS, '[' .. item .. '\255', '[' .. item, 'LIMIT', 0, 1)[1]
      if not newest then break end
      local holder = string.sub(newest, -DIGEST)
      if is_there(holder) then name = holder else redis.call('ZREM', ITEMS, newest) end
    end
    if name == '' and likely ~= '' and is_there(likely) then name = likely end
    table.insert(found, name)
  end
  return found
elseif call == 'delete' then
  local was_there = is_there(ARGV[4])
  remove_named(ARGV[4])
  return was_there and 1 or 0
else -- sweep
  return remove_expired() >= most_removed and 1 or 0
end
