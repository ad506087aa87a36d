-- Empties an event before it is filled from the store. ARGV: the new epoch. Returns 1, or 0 if this epoch or a newer
-- one is complete or in progress: this rebuilder was paused.
local known = tonumber(redis.call('HGET', sale, 'epoch') or redis.call('GET', rebuild) or 0)
local under_way = tonumber(redis.call('GET', rebuild) or 0)
local epoch = tonumber(ARGV[1])
if known >= epoch or under_way >= epoch then return 0 end
redis.call('UNLINK', sale, waiting, completed, lapses, lapsing)
redis.call('SET', rebuild, ARGV[1])
return 1
