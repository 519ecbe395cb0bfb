{{/* Values that contradict one another end the rendering with what to do. The schema has refused wrong types and unknown
     keys before. Context: the root. */}}

{{- define "tidewire.validate" -}}
{{- $values := .Values -}}
{{- $found := list -}}
{{- $kafka := $values.kafka -}}
{{- $cassandra := $values.cassandra -}}
{{- if eq $values.backend "distributed" -}}
{{- if not (or $kafka.bootstrapServers $kafka.strimzi.enabled) -}}
{{- $found = append $found "backend is distributed, but no Kafka is named: set kafka.bootstrapServers, or kafka.strimzi.enabled=true where the Strimzi operator runs; or choose backend=embedded" -}}
{{- end -}}
{{- if not (or $cassandra.contactPoints $cassandra.k8ssandra.enabled) -}}
{{- $found = append $found "backend is distributed, but no Cassandra is named: set cassandra.contactPoints, or cassandra.k8ssandra.enabled=true where the K8ssandra operator runs; or choose backend=embedded" -}}
{{- end -}}
{{- if and $kafka.bootstrapServers $kafka.strimzi.enabled -}}
{{- $found = append $found "kafka.bootstrapServers names a Kafka and kafka.strimzi.enabled asks for another: unset one of them" -}}
{{- end -}}
{{- if and $cassandra.contactPoints $cassandra.k8ssandra.enabled -}}
{{- $found = append $found "cassandra.contactPoints names a Cassandra and cassandra.k8ssandra.enabled asks for another: unset one of them" -}}
{{- end -}}
{{- if and $kafka.strimzi.enabled (or $kafka.existingSecret (ne $kafka.securityProtocol "PLAINTEXT")) -}}
{{- $found = append $found "with kafka.strimzi.enabled the operator makes user, password and certificates: unset kafka.existingSecret and kafka.securityProtocol" -}}
{{- end -}}
{{- if and $kafka.strimzi.enabled (gt (int $kafka.replicationFactor) (int $kafka.strimzi.replicas)) -}}
{{- $found = append $found (printf "kafka.replicationFactor is %d, but kafka.strimzi.replicas makes %d brokers: lower the one or raise the other" (int $kafka.replicationFactor) (int $kafka.strimzi.replicas)) -}}
{{- end -}}
{{- if gt (int $kafka.minInsyncReplicas) (int $kafka.replicationFactor) -}}
{{- $found = append $found (printf "kafka.minInsyncReplicas (%d) is above kafka.replicationFactor (%d), so that nothing could be written: set it to at most that" (int $kafka.minInsyncReplicas) (int $kafka.replicationFactor)) -}}
{{- end -}}
{{- $asksSecret := or (hasPrefix "SASL_" $kafka.securityProtocol) (and (ne $kafka.securityProtocol "PLAINTEXT") (or $kafka.caFromSecret $kafka.clientCertificate)) -}}
{{- if and $asksSecret (not $kafka.existingSecret) (not $kafka.strimzi.enabled) -}}
{{- $found = append $found (printf "kafka.securityProtocol is %s, but there is no Secret with what it needs: set kafka.existingSecret (or, with SSL and public certificates, kafka.caFromSecret=false)" $kafka.securityProtocol) -}}
{{- end -}}
{{- if and $kafka.existingSecret (eq $kafka.securityProtocol "PLAINTEXT") (not $kafka.strimzi.enabled) -}}
{{- $found = append $found "kafka.existingSecret is set, but kafka.securityProtocol is PLAINTEXT, which uses none of it: set kafka.securityProtocol to SASL_SSL or SSL" -}}
{{- end -}}
{{- if and $cassandra.k8ssandra.enabled (or $cassandra.existingSecret $cassandra.datacenter $cassandra.tls.enabled (ne $cassandra.authentication "none")) -}}
{{- $found = append $found "with cassandra.k8ssandra.enabled the operator makes datacenter, user and password: unset cassandra.existingSecret, cassandra.authentication, cassandra.datacenter and cassandra.tls.enabled" -}}
{{- end -}}
{{- if and $cassandra.k8ssandra.enabled (gt (int $cassandra.replicationFactor) (int $cassandra.k8ssandra.size)) -}}
{{- $found = append $found (printf "cassandra.replicationFactor is %d, but cassandra.k8ssandra.size makes %d nodes: lower the one or raise the other" (int $cassandra.replicationFactor) (int $cassandra.k8ssandra.size)) -}}
{{- end -}}
{{- $asksSecret := or (eq $cassandra.authentication "password") $cassandra.tls.enabled -}}
{{- if and $asksSecret (not $cassandra.existingSecret) (not $cassandra.k8ssandra.enabled) -}}
{{- $found = append $found "cassandra.authentication or cassandra.tls.enabled needs a Secret: set cassandra.existingSecret" -}}
{{- end -}}
{{- if and $cassandra.existingSecret (not $asksSecret) (not $cassandra.k8ssandra.enabled) -}}
{{- $found = append $found "cassandra.existingSecret is set, but nothing uses it: set cassandra.authentication=password or cassandra.tls.enabled=true" -}}
{{- end -}}
{{- if and (not $values.auth.existingSecret) (not $values.auth.bootstrap.enabled) -}}
{{- $found = append $found "auth.bootstrap.enabled is false and auth.existingSecret is empty, so that nobody makes the platform's keys: set one of them" -}}
{{- end -}}
{{- range $service := list "registry" "ingestion" "storage" -}}
{{- $own := index $values $service -}}
{{- $scaling := $own.autoscaling -}}
{{- if and $scaling.keda.enabled (not $scaling.enabled) -}}
{{- $found = append $found (printf "%s.autoscaling.keda.enabled is true, but %s.autoscaling.enabled is false: set it to true for KEDA, or leave KEDA out for a fixed number of pods" $service $service) -}}
{{- end -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- $found = append $found (printf "%s.autoscaling.minReplicas (%d) is above maxReplicas (%d): correct one of them" $service (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and $scaling.enabled (not (dig "requests" "cpu" "" $own.resources)) -}}
{{- $found = append $found (printf "%s.autoscaling.enabled measures processor time against the request, but %s.resources.requests.cpu is not set: set it" $service $service) -}}
{{- end -}}
{{- end -}}
{{- $most := int (ternary $values.storage.autoscaling.maxReplicas $values.storage.replicas $values.storage.autoscaling.enabled) -}}
{{- if gt $most (int $kafka.partitions) -}}
{{- $key := ternary "storage.autoscaling.maxReplicas" "storage.replicas" $values.storage.autoscaling.enabled -}}
{{- $found = append $found (printf "%s is %d, but the telemetry topic has %d partitions, so that further pods would have nothing to do: lower it, or, before the first install, raise kafka.partitions" $key $most (int $kafka.partitions)) -}}
{{- end -}}
{{- else -}}
{{- if or $kafka.bootstrapServers $kafka.strimzi.enabled $cassandra.contactPoints $cassandra.k8ssandra.enabled -}}
{{- $found = append $found "Kafka or Cassandra is named, but backend is embedded, which uses neither: set backend=distributed, or unset kafka.bootstrapServers, kafka.strimzi.enabled, cassandra.contactPoints and cassandra.k8ssandra.enabled" -}}
{{- end -}}
{{- if and $values.embedded.persistence.existingClaim $values.embedded.persistence.storageClass -}}
{{- $found = append $found "embedded.persistence.existingClaim names a volume that is there, so that embedded.persistence.storageClass means nothing: unset one of them" -}}
{{- end -}}
{{- end -}}
{{- if $values.tls.enabled -}}
{{- if and $values.tls.existingSecret $values.tls.certManager.enabled -}}
{{- $found = append $found "tls.existingSecret names a certificate and tls.certManager.enabled asks for another: unset one of them" -}}
{{- end -}}
{{- if not (or $values.tls.existingSecret $values.tls.certManager.enabled) -}}
{{- $found = append $found "tls.enabled needs a certificate: set tls.existingSecret, or tls.certManager.enabled=true where cert-manager runs" -}}
{{- end -}}
{{- if and $values.tls.certManager.enabled (not $values.tls.certManager.issuerRef.name) -}}
{{- $found = append $found "tls.certManager.enabled needs an issuer: set tls.certManager.issuerRef.name" -}}
{{- end -}}
{{- else if or $values.tls.existingSecret $values.tls.certManager.enabled -}}
{{- $found = append $found "a certificate is named, but tls.enabled is false: set it to true, or unset tls.existingSecret and tls.certManager.enabled" -}}
{{- end -}}
{{- if and $values.gatewayApi.grpcRoute.enabled (not $values.gatewayApi.grpcRoute.parentRefs) -}}
{{- $found = append $found "gatewayApi.grpcRoute.enabled needs a Gateway: set gatewayApi.grpcRoute.parentRefs" -}}
{{- end -}}
{{- range $block := list "" "embedded" "registry" "ingestion" "storage" -}}
{{- $settings := ternary $values.settings (dig $block "settings" dict (toJson $values | fromJson)) (eq $block "") -}}
{{- $path := ternary "settings" (printf "%s.settings" $block) (eq $block "") -}}
{{- range $name, $key := include "tidewire.chosenElsewhere" $ | fromYaml -}}
{{- if hasKey $settings $name -}}
{{- $found = append $found (printf "%s.%s is decided by %s: set that instead" $path $name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $found -}}
{{- fail (printf "these values contradict one another:\n- %s" (join "\n- " $found)) -}}
{{- end -}}
{{- end }}

{{/* Setting → the value of the chart that decides it. */}}
{{- define "tidewire.chosenElsewhere" -}}
TIDEWIRE_BACKEND: backend
TIDEWIRE_DATA_DIR: the chart, which mounts the volume there
TIDEWIRE_HOST: the chart, since others reach the pod by any of its addresses
TIDEWIRE_ADVERTISE_HOST: advertiseHost of the service, or embedded.advertiseHost
TIDEWIRE_ENDPOINT: the chart, which knows the registry's Service
TIDEWIRE_DRAIN_SECONDS: drain.seconds
TIDEWIRE_INSECURE: tls.enabled
TIDEWIRE_TLS_CERT_FILE: tls.existingSecret or tls.certManager
TIDEWIRE_TLS_KEY_FILE: tls.existingSecret or tls.certManager
TIDEWIRE_TLS_CA_FILE: tls.caFromSecret
TIDEWIRE_SIGNING_KEY_FILE: auth.existingSecret
TIDEWIRE_SERVICE_TOKEN_FILE: auth.existingSecret
TIDEWIRE_UP_HEALTH_PORT: the chart, whose ports are fixed
TIDEWIRE_REGISTRY_PORT: the chart, whose ports are fixed
TIDEWIRE_REGISTRY_METRICS_PORT: the chart, whose ports are fixed
TIDEWIRE_INGESTION_PORT: the chart, whose ports are fixed
TIDEWIRE_INGESTION_METRICS_PORT: the chart, whose ports are fixed
TIDEWIRE_STORAGE_PORT: the chart, whose ports are fixed
TIDEWIRE_STORAGE_METRICS_PORT: the chart, whose ports are fixed
TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS: kafka.bootstrapServers
TIDEWIRE_KAFKA_SECURITY_PROTOCOL: kafka.securityProtocol
TIDEWIRE_KAFKA_SASL_MECHANISM: kafka.saslMechanism
TIDEWIRE_KAFKA_SASL_USERNAME: kafka.existingSecret
TIDEWIRE_KAFKA_SASL_PASSWORD_FILE: kafka.existingSecret
TIDEWIRE_KAFKA_CA_FILE: kafka.caFromSecret
TIDEWIRE_KAFKA_CERT_FILE: kafka.clientCertificate
TIDEWIRE_KAFKA_KEY_FILE: kafka.clientCertificate
TIDEWIRE_KAFKA_TOPIC_PREFIX: kafka.topicPrefix
TIDEWIRE_KAFKA_PARTITIONS: kafka.partitions
TIDEWIRE_KAFKA_REPLICATION_FACTOR: kafka.replicationFactor
TIDEWIRE_KAFKA_MIN_INSYNC_REPLICAS: kafka.minInsyncReplicas
TIDEWIRE_KAFKA_AUTO_TOPICS: kafka.createTopics
TIDEWIRE_CASSANDRA_CONTACT_POINTS: cassandra.contactPoints
TIDEWIRE_CASSANDRA_DATACENTER: cassandra.datacenter
TIDEWIRE_CASSANDRA_KEYSPACE: cassandra.keyspace
TIDEWIRE_CASSANDRA_REPLICATION_FACTOR: cassandra.replicationFactor
TIDEWIRE_CASSANDRA_USERNAME: cassandra.existingSecret
TIDEWIRE_CASSANDRA_PASSWORD_FILE: cassandra.existingSecret
TIDEWIRE_CASSANDRA_CA_FILE: cassandra.tls.enabled
TIDEWIRE_CASSANDRA_CERT_FILE: cassandra.tls.clientCertificate
TIDEWIRE_CASSANDRA_KEY_FILE: cassandra.tls.clientCertificate
TIDEWIRE_CASSANDRA_TLS_SERVER_NAME: cassandra.tls.serverName
{{- end }}
