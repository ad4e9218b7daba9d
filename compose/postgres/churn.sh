#!/bin/sh
# At the first start of an empty PostgreSQL: a database and a role for each who needs one. crm is the source of the customers,
# which reader may only read.
set -eu

password() { cat "/run/secrets/postgres_$1_password"; }

psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
  --set mlflow="$(password mlflow)" --set feast="$(password feast)" --set crm="$(password crm)" --set reader="$(password reader)" <<'SQL'
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE ROLE feast LOGIN PASSWORD :'feast';
CREATE ROLE crm LOGIN PASSWORD :'crm';
CREATE ROLE reader LOGIN PASSWORD :'reader';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE feast OWNER feast;
CREATE DATABASE crm OWNER crm;
REVOKE ALL ON DATABASE mlflow, feast, crm FROM PUBLIC;
GRANT CONNECT ON DATABASE crm TO reader;
\connect crm
ALTER SCHEMA public OWNER TO crm;
GRANT USAGE ON SCHEMA public TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE crm IN SCHEMA public GRANT SELECT ON TABLES TO reader;
SQL
