-- Claims that wait become bought. ARGV: now, or nothing; then user and ticket of each. Where `now` is given, a ticket
-- whose claim is gone is taken again, if there is one left and its user has no other claim.
-- Answers the epoch, then each claim, empty where it is gone; nothing for an unknown event.
local rules = redis.call('HMGET', sale, 'epoch', 'quantity')
if not rules[1] then return false end
local now, quantity = ARGV[1], tonumber(rules[2])
local answers = { rules[1] }
for i = 2, #ARGV, 2 do
  local user, ticket = ARGV[i], ARGV[i + 1]
  local bought, waits = redis.call('HGET', completed, user), redis.call('HGET', waiting, user)
  local claim = ''
  if is_for(bought, ticket) then
    claim = bought
  elseif is_for(waits, ticket) then
    claim = waits
    forget_waiting(user)
    redis.call('HSET', completed, user, claim)
  elseif now ~= '' and not bought and not waits
      and redis.call('HLEN', waiting) + redis.call('HLEN', completed) < quantity then
    claim = ticket .. '|' .. now .. '|' .. now
    redis.call('HSET', completed, user, claim)
  end
  answers[#answers + 1] = claim
end
return answers
