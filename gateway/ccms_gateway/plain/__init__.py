"""Plain requests, writes and queries, are answered without aiohttp, and everything else by it.

    connection -> plain requests -> handlers -> backend
              `-> aiohttp, from the first request on that is anything else

Collectors post a body of known length with a short head, again and again, and front ends ask for a series or two in
the same way: for them aiohttp does more work than storing the samples takes, or reading them. So every connection
begins here. When it brings a request that is not plain, or one that is going to be refused before its body is whole,
aiohttp takes the connection over at the beginning of that request, and keeps it. What a request means is thus defined
in one place; here is only a shorter way to the same answer.
"""
