-- Grants or refuses requests, in order: G granted, B granted before to the same request, R already reserved, P already
-- purchased, N not on sale, S sold out.
-- A request for a ticket that its user holds already is granted again: the answer to the first call was lost.
-- ARGV: five for each request: user, ticket, now, expires, lapses. Returns one letter for each, then the claim of each
-- that was granted before; nil for an unknown event. Claims are read and written in bulk, so a batch costs few
-- commands.
local rules = redis.call('HMGET', sale, 'quantity', 'opens', 'closes', 'price')
if not rules[1] then return false end
local left = tonumber(rules[1]) - redis.call('HLEN', waiting) - redis.call('HLEN', completed)
local opens, closes = tonumber(rules[2]), tonumber(rules[3])
local price = rules[4] or ''

local users = {}
for i = 1, #ARGV, 5 do users[#users + 1] = ARGV[i] end
local held = redis.call('HMGET', waiting, unpack(users))
local bought = redis.call('HMGET', completed, unpack(users))

-- A claim that is granted again to its request lapses a millisecond later, so that `undo_grant` of the first grant,
-- whose answer was lost, leaves it to the caller who was told of the second.
local function grant_before(user, claim)
  if redis.call('HEXISTS', lapsing, user) == 1 then return nil end
  local head, lapses_at = string.match(claim, '^(.*|)(%-?%d+)$')
  local later = string.format('%.0f', tonumber(lapses_at) + 1)
  redis.call('HSET', waiting, user, head .. later)
  redis.call('ZADD', lapses, later, user)
  return head .. later
end

local claims, deadlines, answers, granted, before = {}, {}, {}, {}, {}
for n, user in ipairs(users) do
  local i = (n - 1) * 5
  local ticket, now = ARGV[i + 2], tonumber(ARGV[i + 3])
  local holds = granted[user] or held[n]
  local answer
  if holds and ticket_of(holds) == ticket then
    answer = 'G'
  elseif held[n] and is_of_request(held[n], ticket) then
    local claim = grant_before(user, held[n])
    answer = claim and 'B' or 'R'
    before[#before + 1] = claim
  elseif holds then
    answer = 'R'
  elseif bought[n] then
    answer = 'P'
  elseif (opens and now < opens) or (closes and now >= closes) then
    answer = 'N'
  elseif left <= 0 then
    answer = 'S'
  else
    answer, left = 'G', left - 1
    local claim = ticket .. '|' .. ARGV[i + 4] .. '|' .. ARGV[i + 5] .. '|' .. price .. '|' .. ARGV[i + 5]
    granted[user] = claim
    claims[#claims + 1], claims[#claims + 2] = user, claim
    deadlines[#deadlines + 1], deadlines[#deadlines + 2] = ARGV[i + 5], user
  end
  answers[n] = answer
end
if #claims > 0 then
  redis.call('HSET', waiting, unpack(claims))
  redis.call('ZADD', lapses, unpack(deadlines))
end
return { table.concat(answers), unpack(before) }
