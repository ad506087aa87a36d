-- Undoes grants that their callers were not told. ARGV: user, ticket, lapses of each. A claim that lapses at another
-- time was granted to the same request again since: it stays. Returns nil for an unknown event.
if redis.call('EXISTS', sale) == 0 then return false end
for i = 1, #ARGV, 3 do
  local user, claim = ARGV[i], redis.call('HGET', waiting, ARGV[i])
  if is_for(claim, ARGV[i + 1]) and string.match(claim, '|(%-?%d+)$') == ARGV[i + 2] then
    forget_waiting(user)
    lower_quantity()
  end
end
return true
