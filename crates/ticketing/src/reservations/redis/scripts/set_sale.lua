-- Takes a newer version of the sale over. ARGV: version, quantity, price, opens, closes; empty where there is none.
-- Answers the epoch, or nothing for an unknown event. Fewer than are bought already leave exactly what is bought.
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
