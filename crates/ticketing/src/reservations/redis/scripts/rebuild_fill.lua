-- Puts claims in. ARGV: the epoch to come, 'completed' or 'waiting', then user, claim and lapses of each. Of two
-- that wait for one user the later call stands; one that is bought stands over both.
-- Answers 1, or 0 where this rebuilding is not the one under way any more.
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
