"""Queries that PostgreSQL and we must answer alike: features one by one, and a seeded grammar that mixes them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FEATURES", "Query", "generated"]


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `ordered` where its rows have one order only."""

    sql: str
    ordered: bool = False


# Expressions over one row of t, each asked as `select <expression> from t`, and with FROM-less ones beside them.
_ROW_EXPRESSIONS = """
n / 2; n / -3; -n / 2; n % 3; -n % 3; mod(n, 4); k / 2; id / 3.0; p / 3; p / n; n / p; x / 2; id / 7.0e0; id / 3::numeric
n + p; n * p; p * p; p - n; n + x; p * x; p + x; -p; -n; abs(n); abs(p); abs(x); sign(n); sign(p); sign(x); n * 1.5; 2 * 3; k + 1
round(x); round(p); round(n); round(p, 2); round(p, 0); round(p, -1); round(n, 2); round(x::numeric, 1); trunc(p, 2); trunc(x); trunc(p); trunc(n)
ceil(x); ceil(p); ceil(n); ceiling(p); floor(x); floor(p); floor(n); sqrt(abs(x)); sqrt(abs(p)); exp(1.0); ln(abs(p) + 1); log(abs(n) + 1.0)
power(k, 2); power(p, 2); k ^ 2; 2 ^ 3; 2.0 ^ 3; power(2, 0.5); cbrt(27); pi(); degrees(pi()); div(n, 3); gcd(12, 18); width_bucket(x, 0, 10, 5)
n::int; x::int; p::int; x::bigint; p::bigint; n::text; x::text; p::text; b::text; d::text; ts::text; tz::text; b::int; n::numeric; x::numeric
n::numeric(12,2); x::numeric(12,1); p::numeric(10,2); p::float; p::real; '12'::int; '12.50'::numeric; '1e3'::float; '7'::numeric + 1; s::varchar(2); s::char(1)
cast(n as float); cast(p as numeric); cast(n as text); cast(n + 1 as float); (n + 1)::text; 1::int; 1::bigint; '5'::text; null::int; 2.5::int; 3.5::int; 2.5e0::int; 1.5::float::int
1; 1.5; -1; 'a'; null; true; false; 1e3; 9999999999; 0.10; 1.10 + 1; 'it''s'; e'a\\nb'; 1 = 1; 1 + 1; not b; b and true; b or null
n = 2; n <> 2; n != 2; n < 2; x >= 2.5; s = 'apple'; s < 'b'; n between -2 and 2; n in (1, 2, 3); n not in (1, 2); n is null; n is not null; b is true; b is not true; b is false; b is null
n is distinct from 2; n is not distinct from null; d = '2020-02-29'; d > '2020-01-01'; ts >= '2020-06-01'; ts < '2021-01-01 10:00'; tz > '2020-06-01 00:00+02'; d between '2020-01-01' and '2020-12-31'; s in ('apple', 'fig')
s || u; s || null; s || n; n || s; s || '-' || k; s || p; s || b; concat(s, u, n); concat(s, null, b); concat_ws('-', s, u, k); length(s); char_length(s); octet_length(s); bit_length(s)
upper(s); lower(u); initcap(s || ' of the WORLD-wide 2nd'); initcap(u); left(s, 2); left(s, -2); right(s, 2); right(s, -1); lpad(s, 7, '*'); lpad(s, 3); rpad(s, 7, 'ab'); rpad(s, 2); repeat(s, 2); reverse(s)
replace(s, 'a', 'oo'); translate(s, 'ae', 'xy'); split_part(u, ' ', 1); split_part(u, ' ', 2); split_part('a,b,c', ',', -1); split_part('a', ',', 3); strpos(s, 'p'); position('e' in s); starts_with(s, 'a')
substring(s, 2); substring(s, 2, 3); substring(s, -1, 4); substring(s, 0, 2); substring(s from 2 for 2); substr(s, 3); substring(s from 'a(.)'); substring(s from '[aeiou]+'); overlay(s placing 'XX' from 2); overlay(s placing 'XX' from 2 for 1)
trim(u); trim('  x '); trim(both 'x' from 'xxaxx'); ltrim('  a '); rtrim('xaxx', 'x'); btrim('xaxx', 'x'); trim(leading 'a' from s); ascii(s); chr(65); md5(s); to_hex(255); quote_ident('A b'); quote_literal('it''s')
s like 'a%'; s like '%e'; s not like '%p%'; s ilike 'A%'; s ilike '%E'; s like 'a\\_%'; s like 'a!%%' escape '!'; s ~ '^a'; s ~* '^A'; s !~ 'e$'; s !~* 'E$'; s similar to '(a|b)%'; u ~ '\\d+'
regexp_replace(s, '[aeiou]', '#'); regexp_replace(s, '[aeiou]', '#', 'g'); regexp_replace(s, '(.)p', '<\\1>', 'g'); regexp_replace(s, 'A', 'z', 'gi'); regexp_match(s, 'a(.)'); regexp_match(s, 'p+'); regexp_count(s, 'p')
string_to_array('a,b,c', ','); array_to_string(array['a', null, 'c'], ','); array_to_string(array[1, 2], '-'); array_length(array[1, 2, 3], 1); cardinality(array[1]); array[n, k]; (array[1, 2, 3])[2]; n = any(array[1, 2]); k <> all(array[1, 2]); array_position(array['a', 'b'], 'b'); array[1, 2] || 3; regexp_split_to_array('a1b2c', '[0-9]')
format('%s%%', n); format('%s of %s', s, u); format('%2$s %1$s', 'a', 'b'); format('%10s|', s); format('%-10s|', s); format('%I %L', 'A b', 'it''s'); format('%s', null); format('%s', b); format('%s', p); format('100%%')
date_trunc('month', d); date_trunc('year', ts); date_trunc('day', tz); date_trunc('week', ts); date_trunc('quarter', d); date_trunc('hour', ts); date_trunc('month', d)::date; date_trunc('decade', ts)
extract(year from d); extract(month from ts); extract(day from tz); extract(dow from d); extract(isodow from d); extract(doy from d); extract(week from d); extract(quarter from ts); extract(hour from ts); extract(minute from ts); extract(second from ts); extract(epoch from ts); extract(epoch from d); extract(epoch from tz); extract(isoyear from d); extract(century from d); extract(millisecond from ts); extract(microseconds from ts); extract(epoch from interval '1 year 2 months 3 days'); extract(days from ts - d); extract(julian from d)
date_part('year', d); date_part('second', ts); date_part('epoch', ts); date_part('dow', ts); date_part('day', interval '3 days 4 hours'); date_part('month', d)::int
d + 1; d - 1; 1 + d; d - date '2020-01-01'; d + interval '1 month'; d - interval '36 month'; ts + interval '1 day 2 hours'; ts - interval '90 minutes'; ts - timestamp '2020-01-01'; tz - interval '1 year'; ts - d; tz - tz; interval '1 day' * 2; interval '1 hour' / 2; interval '1 day' + interval '2 hours'; 2 * interval '1 week'; interval '1' day; -interval '1 day'
age(ts, timestamp '2019-12-31'); age(d, date '2000-02-29'); age(timestamp '2021-03-05', timestamp '2020-01-31'); make_date(2020, 2, 29); make_timestamp(2020, 2, 29, 1, 2, 3.5); to_timestamp(0); to_timestamp(1600000000.5); to_timestamp(id * 1000000); isfinite(d); justify_test
to_char(ts, 'YYYY-MM-DD HH24:MI:SS'); to_char(d, 'Mon DD, YYYY'); to_char(d, 'FMMonth FMDD'); to_char(d, 'Month|'); to_char(d, 'Day|'); to_char(d, 'FMDay, DDth'); to_char(ts, 'HH12:MI AM'); to_char(ts, 'yyyy-mm-dd'); to_char(d, 'IYYY-IW'); to_char(d, 'Q'); to_char(d, 'YY Dy DDD D'); to_char(ts, 'MS US'); to_char(tz, 'YYYY"year" TZ'); to_char(d, 'MON mon')
to_char(n, '999'); to_char(p, '999.99'); to_char(p, 'FM999.00'); to_char(p, 'FM9,999.99'); to_char(1234567.891, '9,999,999.99'); to_char(1234567.891, 'FM9,999,999.00'); to_char(n, '0000'); to_char(n, 'FM0000'); to_char(12, '9'); to_char(0.5, '9.99'); to_char(0.5, '0.99'); to_char(x, 'FM990.0'); to_char(-5, 'S99'); to_char(5, '99MI')
to_date('2020-02-29', 'YYYY-MM-DD'); to_date('29.02.2020', 'DD.MM.YYYY'); to_timestamp('2020-02-29 10:11', 'YYYY-MM-DD HH24:MI'); '2021-05-04'::date; '2021-05-04 18:22 (EST)'::date; '2021-05-04 18:22 (-04)'::date; '20210504'::date; 'May 4, 2021'::date; '4 May 2021'::date; '2021-05-04T18:22:01Z'::timestamp; '2021-05-04 18:22+02'::timestamp; '2021-05-04 18:22+02'::timestamptz; '2021-05-04 18:22'::timestamptz; '2021-05-04 18:22 EST'::timestamptz; date '2020-01-01'; timestamp '2020-01-01 10:00'; timestamptz '2020-01-01 10:00+02'; time '10:11:12'; interval '1 month 2 days'; ts::date; tz::date; ts::time; d::timestamp; d::timestamptz; ts::timestamptz; tz::timestamp
ts at time zone 'America/New_York'; tz at time zone 'Europe/Berlin'; tz at time zone 'UTC'; extract(hour from tz at time zone 'Asia/Tokyo')
coalesce(n, 0); coalesce(u, 'none'); coalesce(n, p); coalesce(null, n, 1); coalesce(n, x); nullif(n, 2); nullif(s, 'fig'); greatest(n, 2); least(n, p, 1); greatest(n, null); greatest(s, 'b'); coalesce(d, '2020-01-01'); coalesce(n, '7')
case when n > 1 then 'big' else 'small' end; case when n > 1 then 1 end; case k when 1 then 'one' when 2 then 'two' else s end; case when b then 1 else 0.5 end; case when n > 0 then n else p end; case when b then d end; case when n is null then 'x' else u end; case when b then null else 1 end
j -> 'a'; j ->> 'a'; j -> 'b' -> 0; j -> 'b' ->> 1; j #> '{b,0}'; j #>> '{c,d}'; (j ->> 'a')::int; (j ->> 'a')::int + 1; j ->> 'missing'; json_array_length(j -> 'b'); json_typeof(j -> 'a'); json_typeof(j -> 'b'); j::jsonb ? 'a'; j::jsonb -> 'c'; jsonb_array_length(j::jsonb -> 'b'); j::jsonb @> '{"a": 1}'; json_build_object('k', n, 's', s); jsonb_build_array(n, s, null); to_json(n); json_extract_path_text(j, 'c', 'd'); j -> 'b' -> -1; (j::jsonb -> 'a')::int; row_to_json_test
(n); (n + 1); (s); ((s)::text); n::text::int; n::float / 2; 1 / 2 * 2.0; 7 / 2; -7 / 2; 7 % -2; 7.5 % 2; 10 / 4.0; 1.0 / 3; 2.0 / 3; 100 / 3.0; 22.0 / 7.0; 1e0 / 3; 0.1 + 0.2; 0.1::float + 0.2::float; 5 & 3; 5 | 3; 5 # 3; ~5; 1 << 4; 256 >> 2
exists (select 1 from v where v.t_id = t.id); (select max(qty) from v where v.t_id = t.id); (select count(*) from v); n in (select qty from v); id not in (select t_id from v where t_id is not null); n > any (select qty from v); n >= all (select qty from v where qty is not null); array(select qty from v order by v.id); (select label from v order by v.id limit 1)
current_date = now()::date; now() > '2020-01-01'; localtimestamp > '2020-01-01'; current_timestamp - now(); gen_random_uuid() is not null; random() < 2
sum(n) over (); sum(k) over (partition by b order by id); avg(n) over (partition by k); count(*) over (partition by b); row_number() over (partition by k order by id desc); rank() over (order by k); dense_rank() over (order by k desc); lag(n) over (order by id); lag(n, 2, 0) over (order by id); lead(s) over (order by id desc); first_value(s) over (order by id); last_value(s) over (partition by k order by id rows between unbounded preceding and unbounded following); ntile(3) over (order by id); percent_rank() over (order by id); cume_dist() over (order by k); nth_value(s, 2) over (order by id); max(p) over (order by id rows between 1 preceding and current row); sum(p) over (order by id); avg(p) over (order by id); sum(n) filter (where b) over (order by id); count(n) over w_test
"""

_AGGREGATES = """
count(*); count(n); count(distinct k); sum(n); sum(k); sum(1); sum(p); sum(x); avg(n); avg(p); avg(x); avg(k); min(n); max(s); min(d); max(ts); max(p); min(b::int); sum(distinct k); avg(distinct k)
sum(n) filter (where b); count(*) filter (where n > 0); count(*) filter (where n > 0) * 100 / count(*); count(*) filter (where b) * 100.0 / count(*); sum(case when b then 1 else 0 end); avg(case when b then 1 else 0 end); avg(case when b then 1.0 else 0 end); sum(n) / count(*); sum(p) / sum(n); sum(p) / 3; sum(n) / 2; round(avg(n), 2); round(avg(p), 2); round(avg(x)::numeric, 2); round(sum(x)); trunc(avg(n), 2); avg(n)::int; avg(n)::float; sum(n)::int
bool_and(b); bool_or(b); every(b); string_agg(s, ',' order by id); string_agg(s, '' order by s desc); string_agg(distinct s, ',' order by s); string_agg(n::text, '|' order by id); array_agg(n order by id); array_agg(distinct k order by k); array_agg(s order by s); json_agg(n order by id); jsonb_agg(s order by id)
stddev(n); stddev_pop(n); variance(n); var_pop(x); stddev(x); var_samp(p); corr(x, n); covar_pop(x, n); regr_slope(x, n); percentile_cont(0.5) within group (order by x); percentile_cont(0.25) within group (order by n); percentile_disc(0.5) within group (order by n); mode() within group (order by k); percentile_cont(0.5) within group (order by p desc)
max(n) - min(n); max(d) - min(d); max(ts) - min(ts); count(*) > 3; coalesce(sum(n), 0); max(length(s)); sum(n * p); sum(n + k); avg(n + p); min(greatest(n, 0)); bit_or(k); format('%s%%', round(avg(n) * 100, 1)); sum(n) * 1.0 / count(n); count(*)::float / 3; sum(k)::numeric / count(*); 1.0 * sum(k) / count(*); avg(avg_test)
"""

_WHOLE = """
select * from t order by id
select t.* from t order by id
select v.*, t.s from t join v on v.t_id = t.id order by v.id
select count(*) from t as n
select count(*), count(*) from t
select count(n), sum(n), max(n) from t
select n, n from t order by id
select t.id, v.id from t join v on t.id = v.t_id order by 1, 2
select id as "Total (x.y)", s as "My Name" from t order by "Total (x.y)"
select ID, Name_Test from t
select ID, S as UpperCased from T order by iD
select "id" from "t" order by "t"."id"
select id AS MixedCase from t order by mixedcase
select s, count(*) from t group by s order by s
select k, count(*) from t group by 1 order by 1
select k, count(*) from t group by k order by 2 desc, 1
select k as grp, sum(n) from t group by grp order by grp
select date_trunc('month', ts) as month, count(*) from t group by 1 order by 1
select date_trunc('month', ts), count(*) from t group by date_trunc('month', ts) order by 1
select extract(year from d), count(*) from t group by extract(year from d) order by 1
select n / 2, count(*) from t group by n / 2 order by 1
select upper(s), count(*) from t group by upper(s) having count(*) > 1 order by 1
select k, sum(n) from t group by k having sum(n) > 0 order by k
select k, b, count(*) from t group by rollup (k, b) order by 1, 2, 3
select k, b, count(*), grouping(k) from t group by grouping sets ((k), (b), ()) order by 4, 1, 2, 3
select k, b, sum(n) from t group by cube (k, b) order by 1, 2, 3
select distinct k from t order by k
select distinct k, b from t order by k, b
select distinct on (k) k, id, s from t order by k, id desc
select distinct on (k) * from t order by k, id
select id, n from t order by n, id
select id, n from t order by n desc, id
select id, n from t order by n nulls first, id
select id, n from t order by n desc nulls last, id
select id, s from t order by s, id
select id, s from t order by lower(s) desc, id
select date_trunc('month', ts) + interval '1 month - 1 day' as last_day, ts - '2 days + 3 hours'::interval from t order by id
select to_date(ts::text, 'YYYY-MM-DD'), to_date('29.02.2020 10:11', 'DD.MM.YYYY') from t order by id
select regexp_matches('foo bar', '(\\w+) (\\w+)')
select id, (regexp_matches(s, '[aeiou]'))[1] from t order by id
select id, regexp_matches(s, '[aeiou]', 'g') as m from t
select row_to_json(q) from (select 1 as a, 'x' as b, null::int as c, true as d, 1.5 as e) q
select s, json_agg(row_to_json(q)) from (select s, id, n, j from t order by id) q group by s order by s
select json_agg(v order by v.id) from v where id < 3
select array_to_json(array[1, 2])
select id, -n as m from t order by m, id
select id, n from t order by abs(n), id
select n as id, id as n from t order by id, n
select id from t order by id limit 3
select id from t order by id limit 3 offset 2
select id from t order by id offset 10
select id from t order by id limit all
select id from t order by id fetch first 2 rows only
select id from t order by id limit 1 + 1
select * from v full outer join (select 1 as one) o on 1 = 1 order by id
select a.c, b.c from (select count(*) as c from t) a full outer join (select count(*) as c from v) b on 1 = 1
select a.*, b.* from (select count(*) from t) a full outer join (select count(*) from v) b on 1 = 1
select t.id, v.label from t left join v on v.t_id = t.id order by 1, 2
select t.id, v.label from t right join v on v.t_id = t.id order by 2, 1
select t.id, v.id from t full join v on v.t_id = t.id order by 1, 2
select t.id, v.id from t, v where t.id = v.t_id order by 1, 2
select t.id, v.id from t cross join v order by 1, 2 limit 20
select * from (select id as a from t) x join (select id as a, label from v) y using (a) order by a
select a, x.a, y.a from (select id as a from t) x full join (select t_id as a from v) y using (a) order by 1, 2, 3
select * from (select id, s from t) x natural join (select id, label from v) y order by id
with x as (select k, sum(n) as total from t group by k) select * from x order by k
with x as (select * from t where n > 0), y as (select count(*) as c from x) select c, (select max(id) from x) from y
with x(a, b) as (select id, s from t) select b, a from x order by a
with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) select n, sum(n) over (order by n) from r order by n
with recursive r as (select id, t_id, 1 as depth from v where t_id is null union all select v.id, v.t_id, depth + 1 from v join r on v.t_id = r.id where depth < 4) select * from r order by id, depth
select * from (select id, row_number() over (partition by k order by ts desc nulls last, id) as rn from t) q where rn = 1 order by id
select id, sum(n) over w, avg(n) over w from t window w as (partition by k order by id) order by id
select k, sum(sum(n)) over (order by k) from t group by k order by k
select k, rank() over (order by count(*) desc, k) from t group by k order by 1
select 1 union select 2 union select 1 order by 1
select 1 as a union all select 2.5 order by a
select id, s from t union all select id, label from v order by 1, 2
select id from t intersect select t_id from v order by 1
select id from t except select t_id from v order by 1
select n from t union select k from t order by n nulls first
(select id from t order by id desc limit 2) union all (select id from v order by id limit 1) order by 1
select 'a' union all select s from t order by 1
select null union all select 1 order by 1
values (1, 'a'), (2, 'b')
select * from (values (1, 'a'), (2, null)) as w(num, txt) order by num
select column1 from (values (3), (1)) w order by 1
select * from generate_series(1, 5)
select * from generate_series(1, 10, 3) as g
select g * 2 as twice from generate_series(1, 3) as g
select n from generate_series(3, 1, -1) as s(n)
select * from generate_series('2020-01-01'::date, '2020-01-03'::date, interval '1 day') as day
select day::date, count(t.id) from generate_series('2020-01-01'::timestamp, '2020-01-04'::timestamp, '1 day') as day left join t on t.ts::date = day::date group by 1 order by 1
select generate_series(1, 3)
select unnest(array['x', 'y'])
select * from unnest(array[3, 1, 2]) as q(item) order by item
select t.id, e.value from t, json_array_elements(t.j -> 'b') as e order by t.id, e.value::text
select t.id, e from t, json_array_elements_text(t.j -> 'b') as e order by 1, 2
select t.id, e.key, e.value from t, json_each_text(t.j) as e order by 1, 2
select t.id, key from t, json_object_keys(t.j) as key order by 1, 2
select t.id, x.total from t, lateral (select sum(qty) as total from v where v.t_id = t.id) x order by t.id
select t.id, x.label from t left join lateral (select label from v where v.t_id = t.id order by v.id limit 1) x on true order by t.id
select t.id, w.word from t, lateral regexp_split_to_table(t.u, ' ') as w(word) order by 1, 2
select id from t where exists (select 1 from v where v.t_id = t.id and v.qty > t.k) order by id
select id from t where id in (select t_id from v) order by id
select id from t where (id, k) in (select t_id, qty from v) order by id
select id from t where not b order by id
select id from t where b order by id
select id from t where s is not null and n between -5 and 5 and (k = 1 or x > 0) order by id
select id from t where ts >= '2020-03-01' and ts < '2020-12-31' order by id
select id from t where d = '2020-02-29' or d is null order by id
select (select sum(qty) from v where t_id = t.id) from t order by id
select sum(a.n) from (select n from t where n > 0) a
select (count(*) filter (where n > 0))::float / nullif(count(*), 0) as share from t
select count(*) from t where 1 = 0
select sum(n), avg(n), max(s), count(n), string_agg(s, ','), array_agg(n), bool_and(b) from t where false
select k, avg(n) from t where n is not null group by k order by avg(n), k
select id, case when row_number() over (order by id) = 1 then 'first' else 'rest' end from t order by id
select max(id) from t where n = (select max(n) from t)
select t.s from t group by t.s, t.k having count(*) >= 1 order by t.k, t.s
select x.a + 1 from (select count(*) as a from t) as x
select "?column?" + 1 from (select 1 + 1) q
select count + 1 from (select count(*) from t) q
select q.max from (select max(n) from t) q
select coalesce, "case" from (select coalesce(1, 2), case when true then 1 end) q
select round(100.0 * sum(case when b then 1 else 0 end) / count(*), 2) as pct from t
select format('%s%%', round(100.0 * count(n) / count(*))) as pct from t
select trunc(avg(p), 2), round(avg(p), 3), round(0.7, 3) from t
select to_timestamp(id)::date from t order by 1 limit 2
select id from t where s ~ '^[ab]' order by id
select t.id from t where t.n = (select min(n) from t) order by 1
select count(distinct (k, b)) from t
select s from t where s > 'b' order by s collate "C"
select extract(epoch from (max(ts) - min(ts))) from t
select date '2020-01-01' + n::int from t where n is not null order by id
select array_agg(distinct s order by s) filter (where s is not null) from t
select k, array_agg(id order by id desc) from t group by k order by k
select b, percentile_cont(0.5) within group (order by n) from t group by b order by b
select 1 where exists (select 1 from t)
select id, n from t where n is null order by id
select sum(n) from t having count(*) > 100
select count(*) as total, sum(n) as "Sum" from t
select lower(s) as s, count(*) from t group by lower(s) order by 1
select s as k, count(*) from t group by k, s order by 2, 1
select id + 1 as id from t order by id limit 2
select id as x, x as id from t order by x
select not (n > 1) from t order by id
select n is null as missing, count(*) from t group by missing order by 1
select 'x' as const, k from t group by const, k order by k
select left(s, 1), count(*) from t group by left(s, 1) order by count(*) desc, 1
select avg(length) from (select length(s) from t) q
table v order by id
select * from t where false
"""

_ERRORS = """
select 1 / 0; select 1.0 / 0; select 1e0 / 0; select 5 % 0; select n / 0 from t; select sum(n) / 0 from t; select mod(1, 0); select nope from t; select * from nope; select t.nope from t; select nope.id from t
select 'abc'::int; select '1.5'::int; select 'x'::numeric; select 'x'::date; select 'x'::boolean; select 2147483647 + 1; select 9223372036854775807 + 1; select 99999::smallint; select 3000000000::int; select 123.4::numeric(4,2); select 'x'::json
select round(1.5e0, 1); select sqrt(-1); select ln(0); select id from t, v; select n from t group by k; select count(*) from t where count(*) > 1; select sum(s) from t; select nofunction(1); select id as a from t where a = 1; select count(*) + a from (select 1 as a) q
select id, s from t union select id from v; select id from t union select s from t; select (select id from t); select t.id from t join t on true; select 1 limit -1; selec 1; select from where; select 1 +; select * from t order by 99; select k from t group by 5
select substring('abc', 1, -1); select upper(s, s) from t; select date_trunc('nope', ts) from t; select row_number() from t; select format('%s') ; select format('%q', 1); select array_length(1, 1)
"""


def _split(block: str) -> list[str]:
    found = [item.strip() for line in block.strip().splitlines() for item in line.split(";") if item.strip()]
    return [
        item.replace("\\\\", "\\")
        for item in found
        if not item.endswith("_test") and "_test)" not in item and "_Test" not in item
    ]


def _features() -> Iterator[Query]:
    for expression in _split(_ROW_EXPRESSIONS):
        yield Query(f"select {expression} from t order by id", ordered=True)
    for expression in _split(_AGGREGATES):
        yield Query(f"select {expression} from t", ordered=True)
        yield Query(f"select k, {expression} from t group by k order by k", ordered=True)
    for sql in _WHOLE.strip().splitlines():
        if "_Test" not in sql:
            yield Query(sql, ordered="order by" in sql)
    for sql in _split(_ERRORS):
        yield Query(sql)


FEATURES = tuple(_features())


class _Grammar:
    """Random expressions of a known kind over t."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def _one(self, *choices: str) -> str:
        return self._chance.choice(choices)

    def integer(self, depth: int) -> str:
        if depth <= 0:
            return self._one("n", "k", "id", "2", "-3", "10", "length(s)")
        a, b = self.integer(depth - 1), self.integer(depth - 1)
        return self._one(
            f"({a} + {b})",
            f"({a} - {b})",
            f"({a} * 2)",
            f"({a} / 4)",
            f"({a} / nullif({b}, 0))",
            f"({a} % 5)",
            f"coalesce({a}, {b})",
            f"greatest({a}, {b})",
            f"least({a}, {b}, 7)",
            f"nullif({a}, {b})",
            f"abs({a})",
            f"case when {self.boolean(depth - 1)} then {a} else {b} end",
            f"(case when {self.boolean(depth - 1)} then {a} end)",
            f"strpos({self.text(depth - 1)}, 'a')",
            f"length({self.text(depth - 1)})",
        )

    def numeric(self, depth: int) -> str:
        if depth <= 0:
            return self._one("p", "1.5", "0.25", "-2.5", "10.00", "n::numeric", "p::numeric(10,2)")
        a, b = self.numeric(depth - 1), self.numeric(depth - 1)
        i = self.integer(depth - 1)
        return self._one(
            f"({a} + {b})",
            f"({a} - {i})",
            f"({a} * 0.5)",
            f"({i} / 4.0)",
            f"({a} / nullif({i}, 0))",
            f"round({a}, 2)",
            f"round({a})",
            f"trunc({a}, 1)",
            f"ceil({a})",
            f"floor({a})",
            f"abs({a})",
            f"coalesce({a}, {i})",
            f"case when {self.boolean(depth - 1)} then {a} else {i} end",
            f"extract({self._one('year', 'month', 'day', 'hour', 'dow', 'week')} from {self.moment(depth - 1)})",
            f"({i})::numeric(12,2)",
        )

    def double(self, depth: int) -> str:
        if depth <= 0:
            return self._one("x", "2.5e0", "n::float", "p::float")
        a = self.double(depth - 1)
        return self._one(
            f"({a} + {self.integer(depth - 1)})",
            f"({a} * {self.double(depth - 1)})",
            f"({a} / 4)",
            f"round({a})",
            f"trunc({a})",
            f"ceil({self.integer(depth - 1)})",
            f"floor({a})",
            f"cast({self.numeric(depth - 1)} as float)",
            f"round({self.integer(depth - 1)})",
            f"coalesce({a}, 0)",
            f"date_part('{self._one('year', 'minute', 'epoch')}', {self.moment(depth - 1)})",
        )

    def text(self, depth: int) -> str:
        if depth <= 0:
            return self._one("s", "u", "'Apple pie'", "''", "n::text")
        a, b = self.text(depth - 1), self.text(depth - 1)
        return self._one(
            f"({a} || {b})",
            f"({a} || {self.integer(depth - 1)})",
            f"upper({a})",
            f"initcap({a})",
            f"left({a}, 3)",
            f"right({a}, -1)",
            f"substring({a}, 2, 3)",
            f"substring({a} from 0 for 3)",
            f"replace({a}, 'p', 'b')",
            f"concat({a}, {b}, ({self.boolean(0)}))",
            f"concat_ws('/', {a}, {b})",
            f"coalesce({a}, 'none')",
            f"split_part({a}, ' ', 1)",
            f"lpad({a}, 6, '.')",
            f"trim({a})",
            f"reverse({a})",
            f"format('%s%%', {self.integer(depth - 1)})",
            f"format('%s-%s', {a}, {self.numeric(0)})",
            f"regexp_replace({a}, '[aeiou]', '_', 'g')",
            f"case when {self.boolean(depth - 1)} then {a} else 'other' end",
            f"to_char({self.moment(depth - 1)}, '{self._one('YYYY-MM-DD', 'Mon YYYY', 'HH24:MI', 'FMDay')}')",
            f"({self.integer(depth - 1)})::text",
            f"({self.boolean(depth - 1)})::text",
            "(j ->> 'a')",
            "(j -> 'c' ->> 'd')",
            f"nullif({a}, '')",
        )

    def moment(self, depth: int) -> str:
        if depth <= 0:
            return self._one("ts", "tz", "ts", "timestamp '2020-02-29 12:34:56'")
        a = self.moment(depth - 1)
        return self._one(
            f"date_trunc('{self._one('year', 'month', 'day', 'week', 'hour', 'quarter')}', {a})",
            f"({a} + interval '{self._one('1 month', '36 hours', '2 days 3 hours', '1 year')}')",
            f"({a} - interval '90 minutes')",
            f"coalesce({a}, '2020-01-01')",
            "(d + interval '1 day')",
            "date_trunc('month', d)",
        )

    def boolean(self, depth: int) -> str:
        if depth <= 0:
            return self._one("b", "n > 0", "s = 'apple'", "n is null", "d > '2020-03-01'", "k in (1, 2)")
        a, b = self.boolean(depth - 1), self.boolean(depth - 1)
        i, j = self.integer(depth - 1), self.integer(depth - 1)
        return self._one(
            f"({a} and {b})",
            f"({a} or {b})",
            f"(not {a})",
            f"({i} {self._one('=', '<>', '<', '<=', '>', '>=')} {j})",
            f"({i} < {self.numeric(depth - 1)})",
            f"({i} between -3 and {j})",
            f"({i} is distinct from {j})",
            f"({self.text(depth - 1)} like '{self._one('a%', '%e', '%p%', '_p%')}')",
            f"({self.text(depth - 1)} ilike 'A%')",
            f"({self.text(depth - 1)} ~* '{self._one('^a', 'e$', '[0-9]+', 'pp?')}')",
            f"({a} is not true)",
            f"({i} in (1, 2, {j}))",
            "exists (select 1 from v where v.t_id = t.id)",
            f"({i} in (select qty from v))",
        )

    def any_kind(self, depth: int) -> str:
        kinds = [self.integer, self.numeric, self.double, self.text, self.moment, self.boolean]
        return self._chance.choice(kinds)(depth)

    def aggregate(self) -> str:
        depth = self._chance.randint(0, 2)
        return self._one(
            "count(*)",
            f"count({self.any_kind(depth)})",
            f"count(distinct {self.integer(depth)})",
            f"sum({self.integer(depth)})",
            f"sum({self.numeric(depth)})",
            f"avg({self.integer(depth)})",
            f"avg({self.numeric(depth)})",
            f"round(avg({self.integer(depth)}), 2)",
            f"round(avg({self.double(0)})::numeric, 3)",
            f"max({self.text(depth)})",
            f"min({self.integer(depth)})",
            f"max({self.moment(depth)})",
            f"sum(case when {self.boolean(depth)} then 1 else 0 end)",
            f"count(*) filter (where {self.boolean(depth)})",
            f"100 * count(*) filter (where {self.boolean(depth)}) / count(*)",
            f"string_agg({self.text(depth)}, ',' order by id)",
            f"array_agg({self.integer(depth)} order by id)",
            f"bool_or({self.boolean(depth)})",
            f"sum({self.integer(depth)}) / count(*)",
            f"sum({self.integer(depth)}) * 1.0 / count(*)",
            f"coalesce(sum({self.integer(depth)}), 0)",
        )

    def window(self) -> str:
        frame = self._one(
            "(partition by k order by id)", "(order by id)", "(partition by b)", "(partition by b order by id desc)"
        )
        ordered = self._one("(partition by k order by id)", "(order by id desc)", "(order by n, id)")
        return self._one(
            f"row_number() over {ordered}",
            f"rank() over {ordered}",
            f"sum({self.integer(1)}) over {frame}",
            f"avg({self.numeric(1)}) over {frame}",
            f"avg({self.integer(1)}) over {frame}",
            f"count(*) over {frame}",
            f"lag({self.integer(1)}) over {ordered}",
            f"lead({self.text(1)}, 1, 'end') over {ordered}",
            f"first_value({self.any_kind(1)}) over {ordered}",
            f"max({self.numeric(1)}) over {frame}",
        )

    def query(self) -> Query:
        depth = self._chance.randint(1, 3)
        where = f" where {self.boolean(self._chance.randint(0, 2))}" if self._chance.random() < 0.4 else ""
        shape = self._chance.randrange(7)
        items = [self.any_kind(depth) for _ in range(self._chance.randint(1, 4))]
        if shape <= 1:
            return Query(f"select id, {', '.join(items)} from t{where} order by id", ordered=True)
        if shape == 2:
            keys = [self.any_kind(self._chance.randint(0, 1)) for _ in range(self._chance.randint(1, 2))]
            aggregates = [self.aggregate() for _ in range(self._chance.randint(1, 3))]
            group = ", ".join(str(number + 1) for number in range(len(keys)))
            return Query(f"select {', '.join(keys + aggregates)} from t{where} group by {group} order by {group}")
        if shape == 3:
            return Query(f"select {', '.join(self.aggregate() for _ in items)} from t{where}", ordered=True)
        if shape == 4:
            return Query(f"select id, {self.window()}, {self.window()} from t{where} order by id", ordered=True)
        if shape == 5:
            inner = f"select id, k, {items[0]} as v1, {self.any_kind(1)} as v2 from t{where}"
            return Query(
                f"with q as ({inner}) select q.k, count(v1), max(label), min(q.id) from q "
                f"left join v on v.t_id = q.id group by q.k order by 1"
            )
        return Query(f"select distinct {items[0]}, {self.any_kind(1)} from t{where} order by 1, 2")


def generated(seed: int, count: int) -> list[Query]:
    """`count` random queries; the same for the same seed."""
    grammar = _Grammar(random.Random(seed))
    return [grammar.query() for _ in range(count)]
