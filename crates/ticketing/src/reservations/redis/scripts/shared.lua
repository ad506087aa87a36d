-- Prepended to every script: the keys of one event, always in this order, and the encoding of a claim.
local sale, waiting, completed, lapses, lapsing, rebuild =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- A claim is `ticket|expires|lapses|price|lapses`, or without the last two; a ticket's id has 36 characters. The last
-- number is when it lapses.
local function ticket_of(claim) return string.sub(claim, 1, 36) end

local function is_for(claim, ticket) return claim and ticket_of(claim) == ticket end

-- `lapsing` holds the ticket of a claim that is ending. If its buyer is giving it back, the `retry_at` of that release
-- follows behind a bar.
local function is_being_released(user, ticket)
  local mark = redis.call('HGET', lapsing, user)
  return is_for(mark, ticket) and mark ~= ticket
end

-- Whether this ticket was requested by the request that the claim was granted to: `TicketId::of_request`.
local function is_of_request(claim, ticket)
  return string.sub(claim, 15, 15) == '8' and string.sub(ticket, 15, 15) == '8'
    and string.sub(claim, 25, 36) == string.sub(ticket, 25, 36)
end

-- Decides claims. ARGV: an argument, then user and ticket of each. Returns the epoch, then the word that `decide` returns for
-- each; nil for an unknown event.
local function for_each_claim(decide)
  local epoch = redis.call('HGET', sale, 'epoch')
  if not epoch then return false end
  local words = { epoch }
  for i = 2, #ARGV, 2 do words[#words + 1] = decide(ARGV[i], ARGV[i + 1]) end
  return words
end

local function forget_waiting(user)
  redis.call('HDEL', waiting, user)
  redis.call('ZREM', lapses, user)
  redis.call('HDEL', lapsing, user)
end

-- As in the allocation: after the quantity was lowered below what was sold, a returned ticket is not on sale.
local function lower_quantity()
  local rules = redis.call('HMGET', sale, 'quantity', 'wanted')
  local quantity, wanted = tonumber(rules[1]), tonumber(rules[2])
  if quantity and wanted then
    local bought = redis.call('HLEN', completed)
    redis.call('HSET', sale, 'quantity', math.min(quantity, math.max(wanted, bought)))
  end
end

