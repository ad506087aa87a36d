-- The second half of a lapse: `done` frees what was told of, `undo` lets it wait on. ARGV: which, then user and
-- ticket of each. Answers the epoch, then F for each that was freed, and S for one that stands, or has ended otherwise.
local epoch = redis.call('HGET', sale, 'epoch')
if not epoch then return false end
local answers = { epoch }
for i = 2, #ARGV, 2 do
  local user, ticket = ARGV[i], ARGV[i + 1]
  local claim = redis.call('HGET', waiting, user)
  local freed = 'S'
  if is_for(claim, ticket) and redis.call('HGET', lapsing, user) == ticket then
    if ARGV[1] == 'done' then
      forget_waiting(user)
      follow_down()
      freed = 'F'
    else
      redis.call('HDEL', lapsing, user)
      redis.call('ZADD', lapses, string.match(claim, '|(%-?%d+)$'), user)
    end
  end
  answers[#answers + 1] = freed
end
return answers
