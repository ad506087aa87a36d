-- Empties an event to be filled from the store. ARGV: the epoch to come. Answers 1, or 0 where a newer one is there
-- or under way: who rebuilds has slept.
local known = tonumber(redis.call('HGET', sale, 'epoch') or redis.call('GET', rebuild) or 0)
local under_way = tonumber(redis.call('GET', rebuild) or 0)
local epoch = tonumber(ARGV[1])
if known >= epoch or under_way >= epoch then return 0 end
redis.call('UNLINK', sale, waiting, completed, lapses, lapsing)
redis.call('SET', rebuild, ARGV[1])
return 1
