-- ARGV: user. Returns the price, then the waiting and the completed claim, each empty if there is none; nil for an
-- unknown event. A claim whose expiry has begun is not returned.
local rules = redis.call('HMGET', sale, 'epoch', 'price')
if not rules[1] then return false end
local waits = redis.call('HGET', waiting, ARGV[1])
if waits and redis.call('HEXISTS', lapsing, ARGV[1]) == 1 then waits = false end
return { rules[2], waits or '', redis.call('HGET', completed, ARGV[1]) or '' }
