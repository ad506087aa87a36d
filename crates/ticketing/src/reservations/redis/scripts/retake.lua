-- Grants claims that are gone once more, if a ticket is left and the user has no other claim. They wait to be completed,
-- and expire if they are not. `for_each_claim` with when they lapse. The word is T for each that was granted, and the empty
-- string for the others.
local quantity = tonumber(redis.call('HGET', sale, 'quantity'))
return for_each_claim(function(user, ticket)
  if redis.call('HEXISTS', completed, user) == 1 or redis.call('HEXISTS', waiting, user) == 1
      or redis.call('HLEN', waiting) + redis.call('HLEN', completed) >= quantity then
    return ''
  end
  redis.call('HSET', waiting, user, ticket .. '|' .. ARGV[1] .. '|' .. ARGV[1])
  redis.call('ZADD', lapses, ARGV[1], user)
  return 'T'
end)
