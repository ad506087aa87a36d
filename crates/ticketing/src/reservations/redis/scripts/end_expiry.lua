-- The second half of an expiry: `done` frees the claims, `undo` lets them wait as before, a time postpones them until
-- then. `for_each_claim` with one of these; for a release, its `retry_at` follows `undo` behind a bar. The word is F for
-- each claim that was freed, and S for each other.
local undone = string.match(ARGV[1], '^undo(.*)$')
return for_each_claim(function(user, ticket)
  local claim, mark = redis.call('HGET', waiting, user), redis.call('HGET', lapsing, user)
  if not is_for(claim, ticket) or not is_for(mark, ticket) then return 'S' end
  -- Neither an expiry nor another release undoes a release: its Commit may still come.
  if undone and mark ~= ticket .. undone then return 'S' end
  if ARGV[1] == 'done' then
    forget_waiting(user)
    lower_quantity()
    return 'F'
  end
  local head, lapses_at = string.match(claim, '^(.*|)(%-?%d+)$')
  if not undone then
    lapses_at = ARGV[1]
    redis.call('HSET', waiting, user, head .. lapses_at)
  end
  redis.call('HDEL', lapsing, user)
  redis.call('ZADD', lapses, lapses_at, user)
  return 'S'
end)
