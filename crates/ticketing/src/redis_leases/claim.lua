-- Takes a lease that nobody holds. ARGV: token, now, until, holder. Answers 1, or 0 where somebody holds it.
local known = redis.call('HGET', KEYS[1], 'until')
if known and tonumber(ARGV[2]) < tonumber(known) then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until', ARGV[3], 'holder', ARGV[4])
return 1
