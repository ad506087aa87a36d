-- Grants or refuses wishes, in order: G granted, R already reserved, P already purchased, N not on sale, S sold out.
-- A wish whose ticket its user holds already is granted again: the answer to the first call was lost.
-- ARGV: five for each wish: user, ticket, now, expires, lapses. Answers one letter for each, or nothing for an
-- unknown event. The wishes are read and written at once, so that a batch costs few commands.
local rules = redis.call('HMGET', sale, 'quantity', 'opens', 'closes')
if not rules[1] then return false end
local left = tonumber(rules[1]) - redis.call('HLEN', waiting) - redis.call('HLEN', completed)
local opens, closes = tonumber(rules[2]), tonumber(rules[3])

local users = {}
for i = 1, #ARGV, 5 do users[#users + 1] = ARGV[i] end
local held = redis.call('HMGET', waiting, unpack(users))
local bought = redis.call('HMGET', completed, unpack(users))

local claims, deadlines, answers, granted = {}, {}, {}, {}
for n, user in ipairs(users) do
  local i = (n - 1) * 5
  local ticket, now = ARGV[i + 2], tonumber(ARGV[i + 3])
  local holds = granted[user] or held[n]
  local answer
  if holds then
    answer = ticket_of(holds) == ticket and 'G' or 'R'
  elseif bought[n] then
    answer = 'P'
  elseif (opens and now < opens) or (closes and now >= closes) then
    answer = 'N'
  elseif left <= 0 then
    answer = 'S'
  else
    answer, left = 'G', left - 1
    local claim = ticket .. '|' .. ARGV[i + 4] .. '|' .. ARGV[i + 5]
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
return table.concat(answers)
