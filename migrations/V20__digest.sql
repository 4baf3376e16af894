-- What the daily digest asks for: the effects that ended within a day. A block range index: effects end
-- nearly in the order in which they lie there, it is a few pages for millions of them, and an update of a
-- row keeps no entry of it up to date.
create index effects_ended_at on effects using brin (ended_at);
