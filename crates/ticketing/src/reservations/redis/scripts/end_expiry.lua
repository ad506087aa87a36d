-- The second half of an expiry: `done` frees the claims, `undo` lets them wait as before, a time postpones them until
-- then. ARGV: one of these, then user and ticket of each claim.
-- Returns the epoch, then F for each claim that was freed and S for each other; nil for an unknown event.
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
      lower_quantity()
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
