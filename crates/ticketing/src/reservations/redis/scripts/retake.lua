-- Takes tickets again for claims that are gone, if there is one left and the user has no other claim. They wait to be
-- completed, and lapse by themselves if nobody does. ARGV: when they lapse, then user and ticket of each.
-- Answers the epoch, then T for each that was taken and nothing for the others; nothing for an unknown event.
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
