"""SQL expressions are checked before a consumer begins: a broker compiles each and says where one is wrong.

Tags need no check. A topic that has no broker yet cannot be checked: its expression is refused when it is pulled with,
which is logged. Source: Apache MQClientInstance.checkClientInBroker; reference request_codes.tsv, 46.
"""

import logging
from collections.abc import Iterable
from typing import Final

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, RouteNotFound, StartFailed
from apogeemq.client_remoting import link
from apogeemq.client_remoting.core.refusals import hint_for
from apogeemq.client_remoting.core.subscription import SQL92, Subscription
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.remoting_codec.bodies import CheckClientRequestBody
from apogeemq.remoting_codec.errors import RemoteProtocolError

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S: Final = 3.0


async def start_checked(
    instance: ClientInstance, group: str, subscriptions: Iterable[Subscription], version_ms: int
) -> None:
    """Start a consumer's client and have its expressions checked. Raises StartFailed: nothing is open then."""
    await instance.start()
    try:
        await check_expressions(instance, group, subscriptions, version_ms)
    except BaseException:
        await instance.close()
        raise


async def check_expressions(
    instance: ClientInstance, group: str, subscriptions: Iterable[Subscription], version_ms: int
) -> None:
    """Have every SQL expression compiled by one of its topic's brokers. Raises StartFailed with the broker's reason."""
    for subscription in subscriptions:
        if subscription.expression_type == SQL92:
            body = CheckClientRequestBody(
                client_id=instance.client_id, group=group, subscription_data=subscription.data(version_ms)
            )
            await _check(instance, subscription, body)


async def _check(instance: ClientInstance, subscription: Subscription, body: CheckClientRequestBody) -> None:
    """Ask the topic's brokers one after the other until one answers."""
    try:
        route = await instance.route(subscription.topic, CHECK_TIMEOUT_S)
    except RouteNotFound as error:
        logger.info("the SQL expression for %s is not checked: %s", subscription.topic, error)
        return
    for name in sorted(route.addresses):
        broker = instance.broker(route.addresses[name][min(route.addresses[name])])
        try:
            await link.check_client_config(broker, body, CHECK_TIMEOUT_S)
        except link.Refusal as error:
            raise StartFailed(
                f"the SQL expression {subscription.expression[:200]!r} for topic {subscription.topic} is refused: "
                f"{error.remark}",
                code=error.code,
                code_name=error.code_name,
                broker=name,
                attempts=1,
                hint=hint_for(error.code),
            ) from error
        except (ConnectionBroken, ClientClosed, TimeoutError, RemoteProtocolError) as error:
            logger.info("broker %s did not check the SQL expression for %s: %s", name, subscription.topic, error)
        else:
            return
