#!/bin/sh
envsubst '$PORT' </etc/nginx/templates/default.conf.template >/etc/nginx/conf.d/default.conf
