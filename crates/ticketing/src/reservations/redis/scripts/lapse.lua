-- The first half of a lapse: what is due begins to lapse, and still counts as taken until `lapsed` ends it. Where
-- nobody does, it is due again at `again`. ARGV: now, max, again.
-- Answers when the next is due (empty: none waits), then user and claim of each; nothing for an unknown event.
if redis.call('EXISTS', sale) == 0 then return false end
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
