-- Adds claims. ARGV: the new epoch, 'completed' or 'waiting', then user, claim and lapses of each. Of two waiting claims
-- of one user the later call counts; a completed one counts over both.
-- Returns 1, or 0 if this is no longer the rebuild in progress.
if redis.call('GET', rebuild) ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 3 do
  local user, claim = ARGV[i], ARGV[i + 1]
  if ARGV[2] == 'completed' then
    redis.call('HSET', completed, user, claim)
  elseif redis.call('HEXISTS', completed, user) == 0 then
    redis.call('HSET', waiting, user, claim)
    redis.call('ZADD', lapses, ARGV[i + 2], user)
  end
end
return 1
