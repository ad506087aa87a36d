-- The first half of giving a waiting claim back: nobody can buy it any more, and it still counts as taken until
-- `lapsed` ends it, or until `again` where nobody does. ARGV: user, ticket, again.
-- Answers the epoch, empty where it does not wait; nothing for an unknown event.
local epoch = redis.call('HGET', sale, 'epoch')
if not epoch then return false end
if not is_for(redis.call('HGET', waiting, ARGV[1]), ARGV[2])
    or redis.call('HEXISTS', lapsing, ARGV[1]) == 1 then
  return ''
end
redis.call('HSET', lapsing, ARGV[1], ARGV[2])
redis.call('ZADD', lapses, ARGV[3], ARGV[1])
return epoch
