{{/* How Kafka and Cassandra are reached: given by the user, or made by their operators. Context: the root. Each returns
     JSON, so that pods, Jobs, NetworkPolicies and KEDA say the same. */}}

{{- define "tidewire.kafka" -}}
{{- $kafka := .Values.kafka -}}
{{- if $kafka.strimzi.enabled -}}
{{- $cluster := printf "%s-kafka" (include "tidewire.fullname" .) -}}
{{- dict
  "bootstrap" (printf "%s-kafka-bootstrap.%s.svc:9093" $cluster .Release.Namespace)
  "protocol" "SASL_SSL"
  "mechanism" "SCRAM-SHA-512"
  "username" (include "tidewire.fullname" .)
  "userSecret" (include "tidewire.fullname" .)
  "caSecret" (printf "%s-cluster-ca-cert" $cluster)
  "certSecret" "" | toJson -}}
{{- else -}}
{{- $secret := $kafka.existingSecret -}}
{{- $tls := has $kafka.securityProtocol (list "SSL" "SASL_SSL") -}}
{{- dict
  "bootstrap" $kafka.bootstrapServers
  "protocol" $kafka.securityProtocol
  "mechanism" $kafka.saslMechanism
  "username" ""
  "userSecret" (ternary $secret "" (hasPrefix "SASL_" $kafka.securityProtocol))
  "caSecret" (ternary $secret "" (and $tls $kafka.caFromSecret))
  "certSecret" (ternary $secret "" (and $tls $kafka.clientCertificate)) | toJson -}}
{{- end -}}
{{- end }}

{{- define "tidewire.cassandra" -}}
{{- $cassandra := .Values.cassandra -}}
{{- if $cassandra.k8ssandra.enabled -}}
{{- $cluster := printf "%s-cassandra" (include "tidewire.fullname" .) -}}
{{- dict
  "contact" (printf "%s-dc1-service.%s.svc:9042" $cluster .Release.Namespace)
  "datacenter" "dc1"
  "userSecret" (printf "%s-superuser" $cluster)
  "caSecret" ""
  "certSecret" "" | toJson -}}
{{- else -}}
{{- $secret := $cassandra.existingSecret -}}
{{- dict
  "contact" $cassandra.contactPoints
  "datacenter" $cassandra.datacenter
  "userSecret" (ternary $secret "" (eq $cassandra.authentication "password"))
  "caSecret" (ternary $secret "" $cassandra.tls.enabled)
  "certSecret" (ternary $secret "" (and $cassandra.tls.enabled $cassandra.tls.clientCertificate)) | toJson -}}
{{- end -}}
{{- end }}

{{/* Whether a component talks to a server: ingestion keeps nothing in tables, a Job has its own. Context: dict of root, component, server. */}}
{{- define "tidewire.needs" -}}
{{- $some := dict "ingestion" (list "kafka") "bootstrap" list "topics" (list "kafka") "schema" (list "cassandra") "test" list -}}
{{- if eq .root.Values.backend "distributed" -}}
{{- if or (not (hasKey $some .component)) (has .server (index $some .component)) -}}true{{- end -}}
{{- end -}}
{{- end }}

{{/* Ports of a comma-separated list of host:port, with further ones, as a JSON list. Context: dict of addresses, more. */}}
{{- define "tidewire.portsOf" -}}
{{- $ports := list -}}
{{- range compact (splitList "," .addresses) -}}
{{- $ports = append $ports (regexFind "[0-9]+$" . | int) -}}
{{- end -}}
{{- range .more -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- uniq $ports | toJson -}}
{{- end }}
