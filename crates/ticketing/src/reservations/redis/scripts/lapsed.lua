-- The second half of a lapse: `done` frees what was told of, `undo` lets it wait on, a time lets it wait until then.
-- ARGV: which, then user and ticket of each. Answers the epoch, then F for each that was freed, and S for one that stands, or has ended otherwise.
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
      local head, lapses_at = string.match(claim, '^(.*|)(%-?%d+)$')
      if ARGV[1] ~= 'undo' then
        lapses_at = ARGV[1]
        redis.call('HSET', waiting, user, head .. lapses_at)
      end
      redis.call('HDEL', lapsing, user)
      redis.call('ZADD', lapses, lapses_at, user)
    end
  end
  answers[#answers + 1] = freed
end
return answers
