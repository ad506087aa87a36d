-- Extends a lease. ARGV: token, now, until. Answers 1, or 0 where it ran out or another has it.
local known = redis.call('HMGET', KEYS[1], 'token', 'until')
if known[1] ~= ARGV[1] or tonumber(ARGV[2]) >= tonumber(known[2]) then return 0 end
redis.call('HSET', KEYS[1], 'until', ARGV[3])
return 1
