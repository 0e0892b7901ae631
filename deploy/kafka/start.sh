#!/bin/bash
# Starts the broker; its data is made when there is none.
#
#   9092  SASL, for the services      9094  SASL, for programs on the host, which know it as KAFKA_HOST_ADDRESS
#   9093, 9095  this container alone: the controller, and the broker's own
#
# One broker does not fsync each message: what survives the death of the machine is what its disk had. For more, run
# three brokers with min.insync.replicas=2 on three machines.
set -euo pipefail
: "${KAFKA_PASSWORD:?}" "${KAFKA_CLUSTER_ID:?}" "${KAFKA_HOST_ADDRESS:=127.0.0.1:9092}" "${KAFKA_HEAP:=512m}"

umask 077
plain="org.apache.kafka.common.security.plain.PlainLoginModule required user_tailrace=\"$KAFKA_PASSWORD\";"
cat >/tmp/server.properties <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=CONTROLLER://127.0.0.1:9093,INNER://127.0.0.1:9095,SERVICES://0.0.0.0:9092,HOST://0.0.0.0:9094
advertised.listeners=INNER://127.0.0.1:9095,SERVICES://kafka:9092,HOST://$KAFKA_HOST_ADDRESS
controller.listener.names=CONTROLLER
inter.broker.listener.name=INNER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INNER:PLAINTEXT,SERVICES:SASL_PLAINTEXT,HOST:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.services.plain.sasl.jaas.config=$plain
listener.name.host.plain.sasl.jaas.config=$plain
log.dirs=/var/lib/kafka/data
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=250
message.max.bytes=67108864
PROPERTIES

java=(java -Xshare:auto -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true -Djava.io.tmpdir=/tmp -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info -cp "/opt/kafka/libs/*")
if [ ! -e /var/lib/kafka/data/meta.properties ]; then
    "${java[@]}" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC kafka.tools.StorageTool format -t "$KAFKA_CLUSTER_ID" -c /tmp/server.properties
fi
exec "${java[@]}" "-Xms$KAFKA_HEAP" "-Xmx$KAFKA_HEAP" -XX:+UseG1GC kafka.Kafka /tmp/server.properties
