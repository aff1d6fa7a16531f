'''The HTTP edge every service shares. A service's ``api.py`` looks like this::

    from starlette.responses import Response

    from libs.common.errors import Invalid
    from libs.common.http.batches import BatchAnswer, BatchDecoder
    from libs.common.http.calls import Call
    from libs.common.http.factory import HttpApp
    from libs.common.keys import Scope

    class ThingIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True): ...

    def add_routes(app: HttpApp, handlers: Handlers, journal: Journal) -> None:
        """Everything the service answers."""
        things = BatchDecoder(ThingIn, plural="things")

        async def post_things(call: Call) -> Response:
            if call.query.get("mode") == "import":
                call.require(Scope.MANAGE)
            batch = things.decode(call.body, lines=call.lines)   # Refused 400/413 for the whole body
            events = []
            for index, item in batch.items:                       # those that are well formed
                try:
                    events += handlers.on_thing(item, source=call.source)
                except Invalid as error:
                    batch.refuse(index, error)
            if not events:
                raise batch.nothing_accepted()                    # 422 with the codes in `errors`
            position = journal.append(events)
            await journal.durable(position, Durability.SPOOL)     # Transient becomes 503 + Retry-After
            return batch.answer(position.encode())                # 202 {accepted, rejected, position}

        app.endpoint(
            "POST", "/v1/things", post_things, scope=Scope.COLLECT, takes=things, gives=BatchAnswer,
            status=202, imports=True, summary="Post things", query={"mode": "import takes any past time"},
        )

Single objects: ``orders = ObjectDecoder(OrderIn)``, ``order = orders.decode(call.body)`` (422 with
``errors``), answers by ``reply(struct_or_dict, status=200)``. Without body the same:
``app.endpoint("GET", "/v1/things/{id}", ...)``, ``call.path["id"]``, ``call.query``. In ``app.py``::

    app = create_http("collector", keys=KeyRing(data_dir, dev_key), metrics=metrics, lifecycle=Lifecycle())
    add_routes(app, handlers, journal)
    return Service("collector", app, start=..., stop=..., background=[shipper.run])

Refusals: raise `Invalid` (422), `Refused` (any status and code), `Transient` (503); all become problem
documents. In tests: ``async with running(service)``, then an httpx client on ``ASGITransport(service.app)``.
This package's ``__init__`` imports nothing, so that what needs no HTTP stays free of it.
'''
