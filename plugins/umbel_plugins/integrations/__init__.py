"""Well-known clients and servers over any umbel transport.

    httpcore_backend, httpx_transport    HTTP clients, blocking and awaited
    uvicorn_server                       an HTTP server (ASGI)
    redis_connection                     redis-py, blocking and asyncio
    managers                             multiprocessing's managers and connections
    mcp_transport                        the Model Context Protocol, at both ends

Each module needs its package, and imports nothing else: import the one that you use.
`pip install 'umbel[integrations]'` installs all of these packages. A package that takes
a connected socket, such as pg8000, needs no module: give it `as_socket(stream)`.
"""
