-- The first half of a lapse: what is due begins to lapse, and still counts as taken until `lapsed` ends it. Where
-- nobody does, it is due again at `again`. A claim that lapses after `latest` and was named in the future was granted
-- before the clock was set back: it lapses as long after now as it was meant to after it was named.
-- ARGV: now, max, again, latest.
-- Answers when the next is due (empty: none waits), then user and claim of each; nothing for an unknown event.
if redis.call('EXISTS', sale) == 0 then return false end
local now = tonumber(ARGV[1])
for _, user in ipairs(redis.call('ZRANGE', lapses, '(' .. ARGV[4], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local claim = redis.call('HGET', waiting, user)
  local head, lapses_at = string.match(claim or '', '^(.*|)(%-?%d+)$')
  -- A ticket's name begins with its time: 48 bits of milliseconds.
  local named = head and tonumber(string.sub(claim, 1, 8) .. string.sub(claim, 10, 13), 16)
  if named and named > now then
    local meant = string.format('%.0f', now + tonumber(lapses_at) - named)
    redis.call('HSET', waiting, user, head .. meant)
    redis.call('ZADD', lapses, meant, user)
  end
end
local due = redis.call('ZRANGE', lapses, '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
local answers = { '' }
for _, user in ipairs(due) do
  local claim = redis.call('HGET', waiting, user)
  if claim then
    redis.call('HSET', lapsing, user, ticket_of(claim))
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
