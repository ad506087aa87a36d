-- Releases claims. ARGV: 'any', or 'waiting' to keep completed ones; then user and ticket of each.
-- Returns the epoch, then for each: R released, C completed and kept, or G gone; nil for an unknown event.
local epoch = redis.call('HGET', sale, 'epoch')
if not epoch then return false end
local answers = { epoch }
for i = 2, #ARGV, 2 do
  local user, ticket = ARGV[i], ARGV[i + 1]
  local answer = 'G'
  if is_for(redis.call('HGET', completed, user), ticket) then
    if ARGV[1] == 'any' then
      redis.call('HDEL', completed, user)
      answer = 'R'
    else
      answer = 'C'
    end
  elseif is_for(redis.call('HGET', waiting, user), ticket) then
    forget_waiting(user)
    answer = 'R'
  end
  if answer == 'R' then lower_quantity() end
  answers[#answers + 1] = answer
end
return answers
