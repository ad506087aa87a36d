-- The first half of a release by the buyer: the claim is marked as lapsing, and still counts as waiting until
-- `end_expiry`; if that does not come it is due at `retry_at`. ARGV: user, ticket, retry_at.
-- Returns the epoch, or the empty string if the claim does not wait; nil for an unknown event.
local epoch = redis.call('HGET', sale, 'epoch')
if not epoch then return false end
if not is_for(redis.call('HGET', waiting, ARGV[1]), ARGV[2])
    or redis.call('HEXISTS', lapsing, ARGV[1]) == 1 then
  return ''
end
redis.call('HSET', lapsing, ARGV[1], ARGV[2] .. '|' .. ARGV[3])
redis.call('ZADD', lapses, ARGV[3], ARGV[1])
return epoch
