-- Completes waiting claims. ARGV: an empty string, then user and ticket of each.
-- Returns the epoch, then each claim, or the empty string if it is gone; nil for an unknown event.
local epoch = redis.call('HGET', sale, 'epoch')
if not epoch then return false end
local answers = { epoch }
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
  end
  answers[#answers + 1] = claim
end
return answers
