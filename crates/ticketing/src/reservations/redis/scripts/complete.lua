-- Completes waiting claims: `for_each_claim` without an argument. The word is the claim, or the empty string if it is gone, or
-- its buyer is giving it back: the Commit of the release would not conflict with that of the ticket.
return for_each_claim(function(user, ticket)
  local bought, waits = redis.call('HGET', completed, user), redis.call('HGET', waiting, user)
  if is_for(bought, ticket) then return bought end
  if not is_for(waits, ticket) or is_being_released(user, ticket) then return '' end
  forget_waiting(user)
  redis.call('HSET', completed, user, waits)
  return waits
end)
