-- Releases claims: `for_each_claim` with 'any', or 'waiting' to keep completed ones. The word is R released, C completed and
-- kept, or G gone.
return for_each_claim(function(user, ticket)
  if is_for(redis.call('HGET', completed, user), ticket) then
    if ARGV[1] ~= 'any' then return 'C' end
    redis.call('HDEL', completed, user)
  elseif is_for(redis.call('HGET', waiting, user), ticket) then
    forget_waiting(user)
  else
    return 'G'
  end
  lower_quantity()
  return 'R'
end)
