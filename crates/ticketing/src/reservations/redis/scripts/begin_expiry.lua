-- The first half of an expiry: due claims are marked as lapsing, and still count as waiting until `end_expiry`. A claim
-- that is not ended is due again at `retry_at`. A claim that lapses after `latest` and whose ticket id is from the
-- future was granted before the clock was set back: it is rescheduled to last as long from now as it was granted for.
-- ARGV: now, max, retry_at, latest.
-- Returns when the next claim is due (empty: none waits), then user and claim of each; nil for an unknown event.
if redis.call('EXISTS', sale) == 0 then return false end
local now = tonumber(ARGV[1])
for _, user in ipairs(redis.call('ZRANGE', lapses, '(' .. ARGV[4], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local claim = redis.call('HGET', waiting, user)
  local head, lapses_at = string.match(claim or '', '^(.*|)(%-?%d+)$')
  -- A ticket's id begins with its time: 48 bits of milliseconds.
  local granted_at = head and tonumber(string.sub(claim, 1, 8) .. string.sub(claim, 10, 13), 16)
  if granted_at and granted_at > now then
    local rescheduled = string.format('%.0f', now + tonumber(lapses_at) - granted_at)
    redis.call('HSET', waiting, user, head .. rescheduled)
    redis.call('ZADD', lapses, rescheduled, user)
  end
end
local due = redis.call('ZRANGE', lapses, '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
local answers = { '' }
for _, user in ipairs(due) do
  local claim = redis.call('HGET', waiting, user)
  if claim then
    -- The Commit of a release may still come.
    if not is_being_released(user, ticket_of(claim)) then redis.call('HSET', lapsing, user, ticket_of(claim)) end
    redis.call('ZADD', lapses, ARGV[3], user)
    answers[#answers + 1] = user
    answers[#answers + 1] = claim
  else
    redis.call('ZREM', lapses, user)
  end
end
local next = redis.call('ZRANGE', lapses, 0, 0, 'WITHSCORES')
answers[1] = next[2] or ''
return answers
