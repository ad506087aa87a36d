-- The first half of undoing grants that their callers were not told: the claims are marked as ending, as by an expiry. A
-- claim that is not ended is due at `retry_at`. ARGV: retry_at, then user, ticket, lapses of each. A claim that lapses at
-- another time was granted to the same request again since: it stays. The word is M for each that was marked, and the
-- empty string for the others; nil for an unknown event.
if redis.call('EXISTS', sale) == 0 then return false end
local words = {}
for i = 2, #ARGV, 3 do
  local user, ticket, word = ARGV[i], ARGV[i + 1], ''
  local claim = redis.call('HGET', waiting, user)
  if is_for(claim, ticket) and string.match(claim, '|(%-?%d+)$') == ARGV[i + 2]
      and not is_being_released(user, ticket) then
    redis.call('HSET', lapsing, user, ticket)
    redis.call('ZADD', lapses, ARGV[1], user)
    word = 'M'
  end
  words[#words + 1] = word
end
return words
