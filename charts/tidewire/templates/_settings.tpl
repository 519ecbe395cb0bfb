{{/* The settings of a process: what the chart decides, and over it what the user gave. Settings stand in the pod itself
     and not in a ConfigMap, so that they roll out and roll back with it, and an old pod that restarts during an upgrade
     does not read the new ones. */}}

{{/* A number as Helm got it (as a float) without exponent; text as it is. */}}
{{- define "tidewire.scalar" -}}
{{- if kindIs "string" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end }}

{{/* Setting → value as YAML. Context: dict of root and component (a service, platform, or a Job's name). */}}
{{- define "tidewire.settings" -}}
{{- $values := .root.Values -}}
{{- $distributed := eq $values.backend "distributed" -}}
{{- $serves := has .component (list "platform" "registry" "ingestion" "storage") -}}
{{- $result := dict "TIDEWIRE_BACKEND" $values.backend "TIDEWIRE_DATA_DIR" "/data" -}}
{{- if $serves -}}
{{- $own := index $values (ternary "embedded" .component (eq .component "platform")) -}}
{{- $_ := set $result "TIDEWIRE_HOST" "0.0.0.0" -}}
{{- $_ := set $result "TIDEWIRE_ADVERTISE_HOST" (default (include "tidewire.host" .) $own.advertiseHost) -}}
{{- $_ := set $result "TIDEWIRE_DRAIN_SECONDS" (toString (int $values.drain.seconds)) -}}
{{- if $values.tls.enabled -}}
{{- $_ := set $result "TIDEWIRE_TLS_CERT_FILE" "/etc/tidewire/tls/tls.crt" -}}
{{- $_ := set $result "TIDEWIRE_TLS_KEY_FILE" "/etc/tidewire/tls/tls.key" -}}
{{- if $values.tls.caFromSecret -}}
{{- $_ := set $result "TIDEWIRE_TLS_CA_FILE" "/etc/tidewire/tls/ca.crt" -}}
{{- end -}}
{{- else -}}
{{- $_ := set $result "TIDEWIRE_INSECURE" "true" -}}
{{- end -}}
{{- if include "tidewire.keysSecret" .root -}}
{{- $_ := set $result "TIDEWIRE_SERVICE_TOKEN_FILE" "/etc/tidewire/keys/service-token" -}}
{{- if has .component (list "registry" "platform") -}}
{{- $_ := set $result "TIDEWIRE_SIGNING_KEY_FILE" "/etc/tidewire/keys/signing-key.pem" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "kafka") -}}
{{- $kafka := include "tidewire.kafka" .root | fromJson -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS" $kafka.bootstrap -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_SECURITY_PROTOCOL" $kafka.protocol -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_TOPIC_PREFIX" $values.kafka.topicPrefix -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_PARTITIONS" (toString (int $values.kafka.partitions)) -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_REPLICATION_FACTOR" (toString (int $values.kafka.replicationFactor)) -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_MIN_INSYNC_REPLICAS" (toString (int $values.kafka.minInsyncReplicas)) -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_AUTO_TOPICS" "false" -}}
{{- if $kafka.userSecret -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_SASL_MECHANISM" $kafka.mechanism -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_SASL_PASSWORD_FILE" "/etc/tidewire/kafka/password" -}}
{{- if $kafka.username -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_SASL_USERNAME" $kafka.username -}}
{{- end -}}
{{- end -}}
{{- if $kafka.caSecret -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_CA_FILE" "/etc/tidewire/kafka/ca.crt" -}}
{{- end -}}
{{- if $kafka.certSecret -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_CERT_FILE" "/etc/tidewire/kafka/tls.crt" -}}
{{- $_ := set $result "TIDEWIRE_KAFKA_KEY_FILE" "/etc/tidewire/kafka/tls.key" -}}
{{- end -}}
{{- end -}}
{{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "cassandra") -}}
{{- $cassandra := include "tidewire.cassandra" .root | fromJson -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_CONTACT_POINTS" $cassandra.contact -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_KEYSPACE" $values.cassandra.keyspace -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_REPLICATION_FACTOR" (toString (int $values.cassandra.replicationFactor)) -}}
{{- if $cassandra.datacenter -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_DATACENTER" $cassandra.datacenter -}}
{{- end -}}
{{- if $cassandra.userSecret -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_PASSWORD_FILE" "/etc/tidewire/cassandra/password" -}}
{{- end -}}
{{- if $cassandra.caSecret -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_CA_FILE" "/etc/tidewire/cassandra/ca.crt" -}}
{{- end -}}
{{- if $cassandra.certSecret -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_CERT_FILE" "/etc/tidewire/cassandra/tls.crt" -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_KEY_FILE" "/etc/tidewire/cassandra/tls.key" -}}
{{- end -}}
{{- if $values.cassandra.tls.serverName -}}
{{- $_ := set $result "TIDEWIRE_CASSANDRA_TLS_SERVER_NAME" $values.cassandra.tls.serverName -}}
{{- end -}}
{{- end -}}
{{- if $serves -}}
{{- if $distributed -}}
{{- $_ := set $result "TIDEWIRE_ENDPOINT" (printf "%s:7001" (include "tidewire.host" (dict "root" .root "component" "registry"))) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $values.settings -}}
{{- $_ := set $result $name (include "tidewire.scalar" $value) -}}
{{- end -}}
{{- if $serves -}}
{{- $own := index $values (ternary "embedded" .component (eq .component "platform")) -}}
{{- range $name, $value := $own.settings -}}
{{- $_ := set $result $name (include "tidewire.scalar" $value) -}}
{{- end -}}
{{- end -}}
{{- toYaml $result -}}
{{- end }}

{{/* The list of a container's variables. Context: dict of root and component. */}}
{{- define "tidewire.env" -}}
- name: HOME
  value: /tmp
{{- if ne .component "platform" }}
# One event loop a process: helper threads and heaps for each thread would only cost memory.
- name: MALLOC_ARENA_MAX
  value: "2"
- name: OPENBLAS_NUM_THREADS
  value: "1"
{{- end }}
{{- range $name, $value := include "tidewire.settings" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "kafka") }}
{{- $kafka := include "tidewire.kafka" .root | fromJson }}
{{- if and $kafka.userSecret (not $kafka.username) }}
- name: TIDEWIRE_KAFKA_SASL_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ $kafka.userSecret }}, key: username}
{{- end }}
{{- end }}
{{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "cassandra") }}
{{- with (include "tidewire.cassandra" .root | fromJson).userSecret }}
- name: TIDEWIRE_CASSANDRA_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: username}
{{- end }}
{{- end }}
{{- end }}
