-- Grants claims that are gone once more, if a ticket is left and the user has no other claim. They wait to be completed,
-- and expire if they are not. ARGV: when they lapse, then user and ticket of each.
-- Returns the epoch, then T for each that was granted and the empty string for the others; nil for an unknown event.
local rules = redis.call('HMGET', sale, 'epoch', 'quantity')
if not rules[1] then return false end
local quantity, answers = tonumber(rules[2]), { rules[1] }
for i = 2, #ARGV, 2 do
  local user, answer = ARGV[i], ''
  if redis.call('HEXISTS', completed, user) == 0 and redis.call('HEXISTS', waiting, user) == 0
      and redis.call('HLEN', waiting) + redis.call('HLEN', completed) < quantity then
    redis.call('HSET', waiting, user, ARGV[i + 1] .. '|' .. ARGV[1] .. '|' .. ARGV[1])
    redis.call('ZADD', lapses, ARGV[1], user)
    answer = 'T'
  end
  answers[#answers + 1] = answer
end
return answers
