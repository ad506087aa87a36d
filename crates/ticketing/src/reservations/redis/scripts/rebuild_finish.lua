-- Opens the event again. ARGV: the epoch, version, quantity, wanted, price, opens, closes.
-- Returns 1, or 0 if this is no longer the rebuild in progress.
if redis.call('GET', rebuild) ~= ARGV[1] then return 0 end
redis.call('HSET', sale, 'epoch', ARGV[1], 'version', ARGV[2], 'quantity', ARGV[3], 'wanted', ARGV[4],
  'price', ARGV[5], 'opens', ARGV[6], 'closes', ARGV[7])
redis.call('DEL', rebuild)
return 1
