-- ARGV: user. Answers price, then the claim that waits, then the one that is bought; nothing for an unknown event.
-- A claim that is lapsing does not stand any more.
local rules = redis.call('HMGET', sale, 'epoch', 'price')
if not rules[1] then return false end
local waits = redis.call('HGET', waiting, ARGV[1])
if waits and redis.call('HEXISTS', lapsing, ARGV[1]) == 1 then waits = false end
return { rules[2], waits or '', redis.call('HGET', completed, ARGV[1]) or '' }
