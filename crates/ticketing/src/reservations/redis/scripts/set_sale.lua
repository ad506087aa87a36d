-- Applies a newer version of the sale. ARGV: version, quantity, price, opens, closes; empty if there is none.
-- Returns the epoch, or nil for an unknown event. The quantity never falls below what is completed.
local rules = redis.call('HMGET', sale, 'epoch', 'version')
if not rules[1] then return false end
if tonumber(ARGV[1]) > tonumber(rules[2]) then
  local quantity, bought = tonumber(ARGV[2]), redis.call('HLEN', completed)
  local wanted = ''
  if quantity < bought then wanted, quantity = quantity, bought end
  redis.call('HSET', sale, 'version', ARGV[1], 'quantity', quantity, 'wanted', wanted,
    'price', ARGV[3], 'opens', ARGV[4], 'closes', ARGV[5])
end
return rules[1]
