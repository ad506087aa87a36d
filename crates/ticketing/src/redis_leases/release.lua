-- Lets a lease go, and tells who waits. ARGV: token, channel, name. One that another has meanwhile stands.
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
