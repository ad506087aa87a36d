-- Returns quantity, waiting, completed; nil for an unknown event.
local quantity = redis.call('HGET', sale, 'quantity')
if not quantity then return false end
return { tonumber(quantity), redis.call('HLEN', waiting), redis.call('HLEN', completed) }
