select 1 as nothing_takes_this
