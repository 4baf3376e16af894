-- The mails of a thread are in the journal already: what opened runs, what they heard, what they sent.
-- This finds the runs of a thread. A hash index, because the name of a thread is the sender's and may be
-- longer than a tree's entry; partial, so that no other entry pays for it. What is erased leaves it by itself.

create index journal_thread on journal using hash ((data -> 'input' ->> 'thread'))
    where kind = 'run.opened' and data -> 'input' ->> 'thread' is not null;
